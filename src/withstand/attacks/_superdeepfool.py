"""SuperDeepFool: DeepFool that comes back along the boundary's normal."""

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


class _State(NamedTuple):
    points: Tensor
    first: Tensor  # the margin of x
    far: Tensor  # an adversarial point: the end of the bisection
    normal: Tensor  # the margin's gradient at the nearest adversarial point of the line
    low: Tensor  # shares of the way from x to far: still right,
    high: Tensor  # and already adversarial
    left: Tensor  # bisections to come; 0 while DeepFool walks
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class SuperDeepFool(TowardsTargets):
    """SuperDeepFool (Abdollahpoor et al. 2024, algorithm 2, SDF(inf, 1)), L2.

    DeepFool walks until it has crossed the boundary; `searches` bisections towards x find the
    boundary, the change is projected onto the normal there, along which the nearest point's change
    must lie (eq. 4), and DeepFool walks on from that place. 1 forward + 1 backward a step.
    """

    targets: int = 3

    steps: int = 50
    searches: int = 6
    overshoot: float = 0.02
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("l2",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        zero = torch.zeros_like(problem.eps)
        return _State(
            points=problem.x,
            first=zero,
            far=problem.x,
            normal=torch.zeros_like(problem.x),
            low=zero,
            high=zero,
            left=torch.zeros_like(problem.lane),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        return Query(state.points, state.step < self.steps, lead(problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        column, x = problem.column, problem.x
        searching = state.left > 0
        crossed = seen.hit & ~searching
        far = torch.where(column(crossed), seen.points, state.far)
        normal = torch.where(column(seen.hit), seen.gradient, state.normal)
        middle = (state.low + state.high) / 2
        low = torch.where(searching & ~seen.hit, middle, state.low).masked_fill(crossed, 0.0)
        high = torch.where(searching & seen.hit, middle, state.high).masked_fill(crossed, 1.0)
        left = torch.where(searching, state.left - 1, 0).masked_fill(crossed, self.searches)

        change = far - x
        length = normal.flatten(1).square().sum(1).clamp_min(1e-24)
        along = high * (change * normal).flatten(1).sum(1) / length
        back = x + column(along) * normal
        first = torch.where(state.step == 0, seen.loss, state.first)
        drop = seen.loss.clamp_min(0) + self.overshoot * first
        crossing = onto_plane(problem, seen.points, seen.gradient, drop)
        onward = torch.where(column(searching), back, crossing)
        between = x + column((low + high) / 2) * change
        points = torch.where(column(left > 0), between, onward)
        return _State(
            points=torch.clamp(points, problem.lower, problem.upper),
            first=first,
            far=far,
            normal=normal,
            low=low,
            high=high,
            left=left,
            step=state.step + 1,
        )
