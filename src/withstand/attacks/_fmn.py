"""FMN: the smallest change that suffices, in any of the four norms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._problem import Problem

# A step that ends exactly on the boundary of a linear model would never cross it.
_BEYOND = 1 + 1e-4
_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
# Features at the box's edge leave their share of the length to the others, up to this factor.
_STRETCH = {"l2": 16}


class _State(NamedTuple):
    points: Tensor
    radius: Tensor
    best: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class FMN(Attack):
    """The fast minimum-norm attack (Pintor et al. 2021, algorithm 1).

    A ball around x shrinks while the iterate is adversarial and grows while it is not; the step
    goes down the margin, alpha and gamma fall along a cosine. Where this differs from the paper:
    the margin's gradient is blended over all rival classes, less and less along the same cosine;
    and until the first success the change is brought to the ball's surface, as in DDN (Rony et al.
    2019): inside it, steps that turn about never come as far as the boundary of some robust
    networks. 1 forward + 1 backward a step.
    """

    steps: int = 300
    alpha: float = 1.0
    gamma: float = 0.05
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2", "l1", "l0")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        return _State(
            points=problem.x,
            radius=torch.ones_like(problem.eps),
            best=torch.full_like(problem.eps, torch.inf),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        temperature = self._falling(state)
        objective = partial(loss, "margin", problem, temperature=temperature)
        return Query(state.points, state.step < self.steps, objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> Any:
        assert seen.gradient is not None
        assert seen.loss is not None
        falling = self._falling(state)
        alpha = self.alpha * (0.01 + 0.99 * falling)
        gamma = 0.001 + (self.gamma - 0.001) * falling
        size = length(state.points - problem.x, problem.norm)
        best = torch.where(seen.hit, torch.minimum(state.best, size), state.best)
        if problem.norm == "l0":
            down = torch.minimum(state.radius - 1, (state.radius * (1 - gamma)).floor())
            up = torch.maximum(state.radius + 1, (state.radius * (1 + gamma)).floor())
            radius = torch.where(seen.hit, torch.minimum(down, best), up).clamp_min(0)
        else:
            slope = length(seen.gradient, _DUAL[problem.norm]).clamp_min(1e-12)
            ahead = (size + seen.loss.abs() / slope) * _BEYOND
            up = torch.where(best.isfinite(), state.radius * (1 + gamma), ahead)
            down = torch.minimum(state.radius * (1 - gamma), best)
            radius = torch.where(seen.hit, down, up)
        column = problem.column
        direction = seen.gradient / column(length(seen.gradient, "l2").clamp_min(1e-12))
        change = state.points - problem.x + column(alpha) * direction
        if problem.norm != "l0":
            # Until something is found the radius is where the boundary should be: go there.
            outward = _STRETCH.get(problem.norm, 1) * radius
            outward = (outward / length(change, problem.norm).clamp_min(1e-12)).clamp_min(1)
            change = change * column(torch.where(best.isfinite(), 1.0, outward))
        points = project(problem, problem.x + change, radius)
        return _State(points, radius, best, state.step + 1)

    def _falling(self, state: _State) -> Tensor:
        return (1 + torch.cos(pi * state.step / self.steps)) / 2
