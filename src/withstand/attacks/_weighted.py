"""Past a model and a detector by a weighted sum, the weight searched for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access, Evading
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._pgd import random_start, steepest
from ._problem import Problem


class _State(NamedTuple):
    points: Tensor
    weight: Tensor  # of the detector's silence
    slope: Tensor  # the length of the margin's gradient at the start
    asked: Tensor


@dataclass(frozen=True, kw_only=True)
class WeightedPGD(Attack):
    """Projected gradient ascent on the model's margin plus a weight times the detector's silence.

    For the goal Evading, after Carlini and Wagner (2017b, sec. 2.3). The weight begins where both
    gradients are equally long; it rises by `growth` a hundredth of the way, wherever the model is
    fooled and the detector flags, and falls where the detector is silent and the model right.
    step_size: share of the radius, 5 / steps if not given; it falls linearly to nothing. Other
    goals have no detector, and PGD is what is left. 1 forward + 1 backward a step, and one more of
    each.
    """

    steps: int = 100
    step_size: float | None = None
    growth: float = 1.16
    restarts: int = 1
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2")

    @property
    def lanes(self) -> int:
        """Restarts."""
        return self.restarts

    def init(self, problem: Problem) -> _State:
        one = torch.ones_like(problem.eps)
        return _State(random_start(problem, 1), one, one, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        def objective(scores: Tensor) -> Tensor:
            if not isinstance(problem.goal, Evading):
                return -problem.goal.margin(scores, problem.y)
            fooling, silence = -problem.goal.goal.margin(scores[:, :-1], problem.y), scores[:, -1]
            both = fooling + state.weight * silence
            # The first two gradients, of each alone, are only measured.
            return torch.where(
                state.asked == 0, fooling, torch.where(state.asked == 1, silence, both)
            )

        # The last iterate is judged too.
        return Query(state.points, state.asked <= self.steps + 1, objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.scores is not None
        steep = length(seen.gradient, "l2").clamp_min(1e-12)
        slope = torch.where(state.asked == 0, steep, state.slope)
        weight = torch.where(state.asked == 1, slope / steep, state.weight)
        if isinstance(problem.goal, Evading):
            fooled = problem.goal.goal.margin(seen.scores[:, :-1], problem.y) < 0
            silent = seen.scores[:, -1] > 0
            walking, growth = state.asked > 1, self.growth ** (100 / self.steps)
            weight = torch.where(walking & fooled & ~silent, weight * growth, weight)
            weight = torch.where(walking & silent & ~fooled, weight / growth, weight)
        share = 5 / self.steps if self.step_size is None else self.step_size
        size = share * problem.eps * (1 - (state.asked - 2) / self.steps).clamp(0, 1)
        moved = torch.addcmul(state.points, problem.column(size), steepest(problem, seen.gradient))
        points = torch.where(problem.column(state.asked < 2), state.points, project(problem, moved))
        return _State(points, weight.clamp(1e-12, 1e12), slope, state.asked + 1)
