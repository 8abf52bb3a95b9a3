"""Orthogonal PGD: past a model and a detector, losing with neither what was won of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access, Evading
from ._ball import project
from ._contract import Attack, Query, Seen
from ._pgd import random_start, steepest
from ._problem import Problem


class _State(NamedTuple):
    points: Tensor
    aim: Tensor
    fooled: Tensor
    asked: Tensor


@dataclass(frozen=True, kw_only=True)
class OrthogonalPGD(Attack):
    """Orthogonal projected gradient descent (Bryniarski et al. 2021) for the goal Evading.

    While the model is right its margin is descended, afterwards the detector's suspicion, each
    along its gradient less what lies along the other's. step_size: share of the radius, 5 / steps
    if not given; it falls linearly to nothing. Other goals have no detector, and PGD is what is
    left. 2 forwards + 2 backwards a step.
    """

    steps: int = 100
    step_size: float | None = None
    restarts: int = 1
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2")

    @property
    def lanes(self) -> int:
        """Restarts."""
        return self.restarts

    def init(self, problem: Problem) -> _State:
        no = torch.zeros_like(problem.lane, dtype=torch.bool)
        start = random_start(problem, 1)
        return _State(start, torch.zeros_like(start), no, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        def objective(scores: Tensor) -> Tensor:
            if not isinstance(problem.goal, Evading):
                return -problem.goal.margin(scores, problem.y)
            fooling = -problem.goal.goal.margin(scores[:, :-1], problem.y)
            return torch.where(state.asked % 2 == 0, fooling, scores[:, -1])

        return Query(state.points, state.asked < 2 * self.steps, objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        first = state.asked % 2 == 0
        fooled = torch.where(first, seen.loss > 0, state.fooled)
        aim = torch.where(problem.column(first), seen.gradient, state.aim)
        share = 5 / self.steps if self.step_size is None else self.step_size
        size = share * problem.eps * (1 - state.asked / (2 * self.steps))
        silencing = isinstance(problem.goal, Evading)
        wanted = torch.where(problem.column(fooled & silencing), seen.gradient, aim)
        other = torch.where(problem.column(fooled), aim, seen.gradient)
        direction = _less(wanted, other) if silencing else aim
        moved = torch.addcmul(state.points, problem.column(size), steepest(problem, direction))
        points = torch.where(problem.column(first), state.points, project(problem, moved))
        return _State(points, aim, fooled, state.asked + 1)


def _less(wanted: Tensor, other: Tensor) -> Tensor:
    """The part (B, ...) of a direction that is orthogonal to another."""
    a, b = wanted.flatten(1), other.flatten(1)
    # Gradients of a small scale would underflow when squared.
    b = b / b.abs().amax(1, keepdim=True).clamp_min(1e-30)
    along = (a * b).sum(1, keepdim=True) / b.square().sum(1, keepdim=True).clamp_min(1e-12)
    return (a - along * b).reshape(wanted.shape)
