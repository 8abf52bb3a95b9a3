"""FGSM and PGD: the honest baselines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._noise import normal, uniform
from ._problem import Problem


class _State(NamedTuple):
    points: Tensor
    step: Tensor


def steepest(problem: Problem, gradient: Tensor) -> Tensor:
    """The direction (B, ...) of unit length in the norm that a linear loss rises fastest in.

    Always a new tensor; zero where the gradient is not finite.
    """
    if problem.norm == "linf":
        return gradient.sign()
    unit = gradient / problem.column(length(gradient, "l2").clamp_min(1e-12))
    return unit.nan_to_num_(0.0, 0.0, 0.0)


def random_start(problem: Problem, tag: int) -> Tensor:
    """A random point of the region: uniform in the Linf ball, of random length in L2 and L1."""
    shape, size = problem.x.shape, problem.x[0].numel()
    if problem.norm == "linf":
        spread = uniform(problem, tag, 0, size).reshape(shape).mul_(2).sub_(1)
    else:
        spread = normal(problem, tag, 0, size).reshape(shape)
        radius = uniform(problem, tag + 1, 0, 1)[:, 0]
        spread = spread * problem.column(radius / length(spread, problem.norm))
    start = spread.mul_(problem.column(problem.eps)).add_(problem.x)
    return project(problem, start, owned=True)


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent with a fixed step (Madry et al. 2018), Linf or L2.

    step_size: share of the radius, 2.5 / steps if not given. 1 forward + 1 backward a step.
    """

    steps: int = 40
    step_size: float | None = None
    loss: str = "ce"
    random_start: bool = True
    restarts: int = 1
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2")

    @property
    def lanes(self) -> int:
        """Restarts."""
        return self.restarts

    def init(self, problem: Problem) -> _State:
        start = random_start(problem, 1) if self.random_start else problem.x
        return _State(start, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        # The last iterate is judged too, so that there is one query more than there are steps.
        return Query(state.points, state.step <= self.steps, partial(loss, self.loss, problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        share = 2.5 / self.steps if self.step_size is None else self.step_size
        # One buffer for direction, moved points and projection: it stays in the processor's cache.
        moved = steepest(problem, seen.gradient)
        torch.addcmul(state.points, problem.column(problem.eps), moved, value=share, out=moved)
        return _State(project(problem, moved, owned=True), state.step + 1)


@dataclass(frozen=True, kw_only=True)
class FGSM(PGD):
    """The fast gradient sign method (Goodfellow et al. 2015): one full step from x."""

    steps: int = 1
    step_size: float | None = 1.0
    random_start: bool = False
