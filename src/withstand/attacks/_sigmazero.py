"""Sigma-zero: the fewest features, along a smooth stand-in for their number."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._problem import Problem


class _State(NamedTuple):
    points: Tensor
    threshold: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class SigmaZero(Attack):
    """Sigma-zero (Cina et al. 2025, algorithm 1), L0.

    The margin and sum(d^2 / (d^2 + sigma)) / n are minimised together by Adam on gradients of
    length one in Linf; changes below a threshold are undone, and the threshold rises while the
    rest still fools the model. 1 forward + 1 backward a step.
    """

    steps: int = 300
    sigma: float = 1e-3
    threshold: float = 0.3
    rate: float = 1.0
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("l0",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        return _State(
            points=problem.x,
            threshold=torch.full_like(problem.eps, self.threshold),
            mean=torch.zeros_like(problem.x),
            square=torch.zeros_like(problem.x),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        def objective(scores: Tensor) -> Tensor:
            return problem.goal.margin(scores, problem.y)

        return Query(state.points, state.step < self.steps, objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        column = problem.column
        # Thresholds and rates are shares of what a feature can change at all.
        span = _span(problem)
        change = (seen.points - problem.x) / span
        squared = change.square()
        sparse = 2 * self.sigma * change / (squared + self.sigma).square() / problem.x[0].numel()
        slope = torch.where(column(seen.hit), 0.0, seen.gradient * span) + sparse
        slope = slope / column(length(slope, "linf").clamp_min(1e-12))
        mean = torch.lerp(slope, state.mean, 0.9)
        square = torch.lerp(slope.square(), state.square, 0.999)
        number = state.step + 1
        unbiased = column((1 - 0.999**number).sqrt() / (1 - 0.9**number))
        rate = 0.1 + 0.9 * (1 + torch.cos(pi * state.step / self.steps)) / 2
        ahead = unbiased * mean / (square.sqrt() + 1e-8 * unbiased)
        change = change - self.rate * column(rate) * ahead
        points = torch.clamp(problem.x + change * span, problem.lower, problem.upper)
        # Adapting after the step uses what was seen before it (algorithm 1, line 9).
        turn = 0.01 * self.rate * rate
        threshold = (state.threshold + torch.where(seen.hit, turn, -turn)).clamp(0, 1)
        small = (points - problem.x).abs() < column(threshold) * span
        return _State(
            points=torch.where(small, problem.x, points),
            threshold=threshold,
            mean=mean,
            square=square,
            step=number,
        )


def _span(problem: Problem) -> Tensor:
    """The width (B, ...) of each feature's box, 1 where it has no end or no width."""
    span = problem.upper - problem.lower
    return torch.where(span.isfinite() & (span > 0), span, 1.0)
