"""Carlini and Wagner's L2 attack, with its search for the constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Attack, Query, Seen
from ._problem import Problem

# The edge of the box itself has no finite coordinate.
_INSIDE = 1 - 1e-4


class _State(NamedTuple):
    w: Tensor
    mean: Tensor
    square: Tensor
    constant: Tensor
    low: Tensor
    high: Tensor
    fooled: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Attack):
    """The L2 attack of Carlini and Wagner (2017, sec. VI-A), each sample with its own constant.

    Adam minimises |x' - x|^2 + c * max(margin, 0) in coordinates w with x' = mid + half * tanh(w);
    c is bisected `searches` times, up where nothing was found and down where something was.
    searches * steps forwards + backwards.
    """

    steps: int = 200
    searches: int = 9
    constant: float = 0.01
    rate: float = 0.1
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("l2",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        none = torch.zeros_like(problem.eps)
        return _State(
            w=self._origin(problem),
            mean=torch.zeros_like(problem.x),
            square=torch.zeros_like(problem.x),
            constant=none + self.constant,
            low=none,
            high=none + torch.inf,
            fooled=torch.zeros_like(problem.lane, dtype=torch.bool),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        def objective(scores: Tensor) -> Tensor:
            return problem.goal.margin(scores, problem.y)

        return Query(
            self._point(problem, state.w), state.step < self.steps * self.searches, objective
        )

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        column = problem.column
        pull = torch.where(column(seen.hit), 0.0, column(state.constant) * seen.gradient)
        slope = (2 * (seen.points - problem.x) + pull) * self._stretch(problem, state.w)
        within = state.step % self.steps
        mean = torch.lerp(slope, state.mean, 0.9)
        square = torch.lerp(slope.square(), state.square, 0.999)
        unbiased = column((1 - 0.999 ** (within + 1)).sqrt() / (1 - 0.9 ** (within + 1)))
        w = state.w - self.rate * unbiased * mean / (square.sqrt() + 1e-8 * unbiased)

        fooled = state.fooled | seen.hit
        over = within == self.steps - 1
        low = torch.where(over & ~fooled, state.constant, state.low)
        high = torch.where(over & fooled, torch.minimum(state.high, state.constant), state.high)
        searched = torch.where(high.isfinite(), (low + high) / 2, 10 * state.constant)
        return _State(
            w=torch.where(column(over), self._origin(problem), w),
            mean=torch.where(column(over), 0.0, mean),
            square=torch.where(column(over), 0.0, square),
            constant=torch.where(over, searched, state.constant),
            low=low,
            high=high,
            fooled=fooled & ~over,
            step=state.step + 1,
        )

    def _point(self, problem: Problem, w: Tensor) -> Tensor:
        middle, half = _box(problem)
        inside = torch.where(half.isfinite(), middle + half * w.tanh(), w)
        return torch.clamp(inside, problem.lower, problem.upper)

    def _stretch(self, problem: Problem, w: Tensor) -> Tensor:
        """How far a point moves with its coordinate."""
        _, half = _box(problem)
        return torch.where(half.isfinite(), half * (1 - w.tanh().square()), 1.0)

    def _origin(self, problem: Problem) -> Tensor:
        middle, half = _box(problem)
        share = ((problem.x - middle) / half.clamp_min(1e-12)).clamp(-_INSIDE, _INSIDE)
        return torch.where(half.isfinite(), share.atanh(), problem.x)


def _box(problem: Problem) -> tuple[Tensor, Tensor]:
    """Middle and half width (B, ...) of the box; a feature without an end has an infinite width."""
    half = (problem.upper - problem.lower) / 2
    return torch.where(half.isfinite(), problem.lower + half, 0.0), half
