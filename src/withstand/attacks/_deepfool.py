"""DeepFool and SuperDeepFool: steps to where a linear margin would end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Query, Seen
from ._plane import onto_plane
from ._problem import Problem
from ._targets import TowardsTargets, lead

# Float32 cannot cross a boundary by less.
_LEAST = 1e-6


class _State(NamedTuple):
    points: Tensor
    ended: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class DeepFool(TowardsTargets):
    """DeepFool (Moosavi-Dezfooli et al. 2016, algorithms 1 and 2), Linf, L2 and L1.

    Each step goes to where the lead over a class would vanish inside the box if it were linear, and
    `overshoot` beyond; it ends at the first success, which is near and not the nearest. The paper
    chooses among ten classes at each step, here each of `targets` is walked to on its own. 1
    forward + 1 backward a step, of which a few suffice.
    """

    targets: int = 9
    steps: int = 50
    overshoot: float = 0.02
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        no = torch.zeros_like(problem.lane, dtype=torch.bool)
        return _State(problem.x, no, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        return Query(state.points, ~state.ended & (state.step < self.steps), lead(problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        return _State(crossing(problem, seen, self.overshoot), seen.hit, state.step + 1)


def crossing(problem: Problem, seen: Seen, overshoot: float) -> Tensor:
    """The nearest points (B, ...) beyond the boundary, if the margin were linear."""
    assert seen.gradient is not None
    assert seen.loss is not None
    drop = (1 + overshoot) * seen.loss.clamp_min(_LEAST)
    return onto_plane(problem, seen.points, seen.gradient, drop)
