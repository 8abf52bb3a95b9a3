"""Attacks that go on after their first success, of which the best one is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...attacks import Ask, Attack, Problem, Query, Seen
from ...threat import Goal, Targeted, Untargeted
from ._view import Past


class Kept(NamedTuple):
    """The best example (N, ...) of each sample, and how good it is (N,), infinite without one."""

    x_adv: Tensor
    value: Tensor


class Keeper:
    """Sees every answer of an attack, and keeps for each sample (N,) the lowest of the fooled.

    Lowest in the detector's suspicion where the goal is Past, else in the margin, so that the
    surest mistake is kept.
    """

    def __init__(self, x: Tensor, keys: Tensor) -> None:
        self.keys, self.order = keys.sort()
        self.best = Kept(x.clone(), torch.full((len(x),), torch.inf, device=x.device))

    def see(self, problem: Problem, seen: Seen) -> None:
        """Note what an attack was answered; rows of several points have nothing to keep."""
        if seen.scores is None or seen.scores.ndim != 2:
            return
        value = value_of(problem.goal, seen.scores, problem.y)
        place = self.order[torch.searchsorted(self.keys, problem.key)]
        better = (value < self.best.value[place]).nonzero()[:, 0]
        self.best.value[place[better]] = value[better]
        self.best.x_adv[place[better]] = seen.points[better]


def value_of(goal: Goal, scores: Tensor, y: Tensor) -> Tensor:
    """How good scores (B, K) are for the attacker (B,), less is better; infinite where right."""
    if isinstance(goal, Past):
        own, value, inner = goal.own(scores)[:, :-1], -scores[:, -1], goal.goal
    else:
        own, value = scores, goal.margin(scores, y)
        inner = goal.goal if isinstance(goal, Endless) else goal
    fooled = inner.hit(inner.decide(own), y)
    return torch.where(fooled & ~value.isnan(), value, torch.inf)


class Endless:
    """A goal that is never reached, so that attacks go on to their end; `goal` is the real one."""

    goal: Goal

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(answer == y)


class _EndlessUntargeted(Endless, Untargeted):
    goal = Untargeted()


class _EndlessTargeted(Endless, Targeted):
    @property
    def goal(self) -> Goal:  # type: ignore[override]
        return Targeted(self.target)


def endless(goal: Goal) -> Goal:
    """The goal that attacks follow as this one, and never reach."""
    return _EndlessTargeted(goal.target) if isinstance(goal, Targeted) else _EndlessUntargeted()


@dataclass(frozen=True, kw_only=True)
class Keeping(Attack):
    """Another attack, watched by a keeper."""

    attack: Attack
    keeper: Keeper

    @property
    def needs(self) -> Any:  # type: ignore[override]
        return self.attack.needs

    @property
    def norms(self) -> Any:  # type: ignore[override]
        return self.attack.norms

    @property
    def minimum_norm(self) -> Any:  # type: ignore[override]
        return self.attack.minimum_norm

    @property
    def lanes(self) -> int:
        return self.attack.lanes

    @property
    def plan_cost(self) -> tuple[int, int]:
        return self.attack.plan_cost

    def plan(self, problem: Problem, ask: Ask) -> Tensor | None:
        return self.attack.plan(problem, ask)

    def init(self, problem: Problem) -> Any:
        return self.attack.init(problem)

    def query(self, problem: Problem, state: Any) -> Query:
        return self.attack.query(problem, state)

    def step(self, problem: Problem, state: Any, seen: Seen) -> Any:
        self.keeper.see(problem, seen)
        return self.attack.step(problem, state, seen)
