"""DDN: the direction of the gradient, and a length that decides for itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._noise import normal
from ._problem import Problem

# Features at the box's edge leave their share of the length to the others, up to this factor.
_STRETCH = 16
# Halvings that leave of gamma, by which lengths differ, less than a five-hundredth of the length.
_ENDING = 5


class _State(NamedTuple):
    points: Tensor
    radius: Tensor
    best: Tensor
    nearest: Tensor  # the point whose length is the best
    gap: Tensor  # the share of the way to it that the ending tries to leave out
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class DDN(Attack):
    """Decoupled direction and norm (Rony et al. 2019, algorithm 1), L2, without quantisation.

    The change follows the gradient of the cross-entropy and is brought to a length that shrinks by
    gamma while it is adversarial and grows while it is not. Where this differs from the paper: the
    last few steps bisect the way from x to the nearest example. 1 forward + 1 backward a step.
    """

    steps: int = 300
    radius: float = 1.0
    gamma: float = 0.05
    loss: str = "ce"
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("l2",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        return _State(
            points=problem.x,
            radius=torch.full_like(problem.eps, self.radius),
            best=torch.full_like(problem.eps, torch.inf),
            nearest=problem.x,
            gap=torch.full_like(problem.eps, self.gamma),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        return Query(state.points, state.step < self.steps, partial(loss, self.loss, problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        column = problem.column
        gradient = seen.gradient
        slope = length(gradient, "l2")
        if not bool(slope.all()):
            # Where there is no gradient any direction is as good (sec. 3).
            drawn = normal(problem, 1, state.step, problem.x[0].numel()).reshape(problem.x.shape)
            gradient = torch.where(column(slope > 0), gradient, drawn)
            slope = length(gradient, "l2")
        size = length(state.points - problem.x, "l2")
        closer = seen.hit & (size < state.best)
        best = torch.where(closer, size, state.best)
        nearest = torch.where(column(closer), seen.points, state.nearest)
        radius = state.radius * torch.where(seen.hit, 1 - self.gamma, 1 + self.gamma)
        radius = torch.minimum(radius, best)
        falling = (1 + torch.cos(pi * state.step / self.steps)) / 2
        alpha = 0.01 + 0.99 * falling
        change = state.points - problem.x + column(alpha / slope.clamp_min(1e-12)) * gradient
        scale = _STRETCH * radius / length(change, "l2").clamp_min(1e-12)
        points = project(problem, problem.x + column(scale) * change, radius)
        number = state.step + 1
        ending = best.isfinite() & (number >= self.steps - min(_ENDING, self.steps // 10))
        gap = torch.where(ending, state.gap / 2, state.gap)
        shorter = torch.lerp(nearest, problem.x, column(gap))
        shorter = torch.clamp(shorter, problem.lower, problem.upper)
        points = torch.where(column(ending), shorter, points)
        return _State(points, radius, best, nearest, gap, number)
