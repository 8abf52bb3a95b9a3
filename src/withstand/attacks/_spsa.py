"""SPSA: Adam on a gradient estimated by simultaneous perturbation, from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ._ball import length, project
from ._contract import Seen
from ._differences import Differences, width
from ._noise import uniform
from ._problem import Problem


class _State(NamedTuple):
    point: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class SPSA(Differences):
    """SPSA (Uesato et al. 2018): differences along random signs, Adam, projection, Linf or L2.

    rate: Adam's step, as a share of what a feature can typically move; betas: its two decays. 1 + 2
    * pairs forwards a step.
    """

    rate: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)

    def directions(self, problem: Problem, number: Tensor) -> Tensor:
        """Random signs."""
        return uniform(problem, 1, number, problem.x[0].numel()).sub_(0.5).sign_()

    def init(self, problem: Problem) -> _State:
        zero = torch.zeros_like(problem.x)
        return _State(problem.x, zero, zero, torch.zeros_like(problem.lane))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        slope = self.slope(problem, seen)
        slope = slope / problem.column(length(slope, "l2").clamp_min(1e-12))
        first, second = self.betas
        mean = first * state.mean + (1 - first) * slope
        square = second * state.square + (1 - second) * slope.square()
        scaled = self._unbiased(problem, first, mean, state.step)
        spread = self._unbiased(problem, second, square, state.step).sqrt().clamp_min(1e-12)
        point = state.point - self.rate * width(problem) * scaled / spread
        return _State(project(problem, point), mean, square, state.step + 1)

    def _unbiased(self, problem: Problem, beta: float, average: Tensor, step: Tensor) -> Tensor:
        """A running average less its bias towards the zero it began with."""
        # A table, because powers computed in the model's batch may round by their place in it.
        most = self.queries // self.asked + 2
        seen = [1 - beta**n for n in range(1, most + 1)]
        table = torch.tensor(seen, dtype=average.dtype, device=average.device)
        return average / problem.column(table[step.clamp_max(most - 1)])
