"""NES: gradient descent on a gradient estimated by natural evolution strategies, from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ._ball import length, project
from ._contract import Seen
from ._differences import Differences, width
from ._noise import normal
from ._pgd import steepest
from ._problem import Problem


class _State(NamedTuple):
    point: Tensor
    velocity: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class NES(Differences):
    """NES (Ilyas et al. 2018): antithetic Gaussian differences and projected steps, Linf or L2.

    rate: the first step, as a share of the radius; later steps shrink in proportion to the queries
    that are left. momentum: of the estimated gradients. 1 + 2 * pairs forwards a step.
    """

    rate: float = 0.5
    momentum: float = 0.9

    def directions(self, problem: Problem, number: Tensor) -> Tensor:
        """Standard normal directions."""
        return normal(problem, 1, number, problem.x[0].numel())

    def init(self, problem: Problem) -> _State:
        return _State(problem.x, torch.zeros_like(problem.x), torch.zeros_like(problem.lane))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        slope = self.slope(problem, seen)
        # Of one length, since the size of an estimate says little but how steep the model is.
        slope = slope / problem.column(length(slope, "l2").clamp_min(1e-12))
        velocity = self.momentum * state.velocity + (1 - self.momentum) * slope
        left = 1 - (state.step * self.asked).double() / self.queries
        reach = width(problem) if problem.norm == "linf" else problem.column(problem.eps)
        size = reach * problem.column((self.rate * left).clamp_min(0).float())
        point = project(problem, state.point - size * steepest(problem, velocity))
        return _State(point, velocity, state.step + 1)
