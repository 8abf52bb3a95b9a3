"""Sigma-zero: the fewest features, along a smooth stand-in for their number."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._problem import Problem

_ENDING = 20
# Of the nearest example's changes, where a round begins.
_BACK = 0.75
# Rates of the rounds after the first, by turns: far steps find other features, near ones better.
_RATES = (3.0, 1.5)


class _State(NamedTuple):
    points: Tensor
    threshold: Tensor
    mean: Tensor
    square: Tensor
    nearest: Tensor  # the example with the fewest changes,
    full: Tensor  # and with each of them as far as it helps,
    best: Tensor  # how many,
    weight: Tensor  # and what each brings; infinite where the example needs it
    began: Tensor  # the step at which its round did
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class SigmaZero(Attack):
    """Sigma-zero (Cina et al. 2025, algorithm 1), L0.

    The margin and sum(d^2 / (d^2 + sigma)) / n are minimised together by Adam on gradients of
    length one in Linf; changes below a threshold are undone, and the threshold rises while the
    rest still fools the model. Where this differs from the paper: rounds of about `period` steps
    each begin, with small steps, a quarter of the way back from the nearest example, if there is
    one (warm restarts, Loshchilov and Hutter 2017); the margin's gradient is blended over all rival
    classes, less and less as the rate falls; and the last fifth of the steps, at most 20, undo
    changes of the nearest example one by one, the lightest first; in half of them the other changes
    go to the box's edge. 1 forward + 1 backward a step.
    """

    steps: int = 300
    period: int = 50
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
            nearest=problem.x,
            full=problem.x,
            best=torch.full_like(problem.eps, torch.inf),
            weight=torch.zeros_like(problem.x),
            began=torch.zeros_like(problem.lane),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        def objective(scores: Tensor) -> Tensor:
            return -loss("margin", problem, scores, self._falling(state))

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
        unbiased = column(self._unbiased(state))
        rate = 0.1 + 0.9 * self._falling(state)
        ahead = unbiased * mean / (square.sqrt() + 1e-8 * unbiased)
        change = change - self.rate * column(rate) * ahead
        points = torch.clamp(problem.x + change * span, problem.lower, problem.upper)
        # Adapting after the step uses what was seen before it (algorithm 1, line 9).
        turn = 0.01 * self.rate * rate
        threshold = (state.threshold + torch.where(seen.hit, turn, -turn)).clamp(0, 1)
        small = (points - problem.x).abs() < column(threshold) * span
        points = torch.where(small, problem.x, points)

        moved = seen.points - problem.x
        size = length(moved, "l0")
        closer = seen.hit & (size < state.best)
        best = torch.where(closer, size, state.best)
        nearest = torch.where(column(closer), seen.points, state.nearest)
        edge = torch.where(seen.gradient > 0, problem.lower, problem.upper)
        edge = torch.where(edge.isfinite() & (seen.gradient != 0), edge, seen.points)
        edge = torch.where(moved != 0, edge, problem.x)
        full = torch.where(column(closer), edge, state.full)
        failed = self._ending(state.best, state.step) & ~closer
        undone = (moved == 0) & (state.nearest != problem.x)
        needed = state.weight.isinf() | (undone & column(failed))
        # What a change brings to first order is what the margin falls by.
        weight = torch.where(column(closer), seen.gradient * (problem.x - edge), state.weight)
        # What is needed beside full changes may still be undone beside the example's own.
        half = number >= self.steps - self._last // 2
        needed = needed & column(number != self.steps - self._last // 2)
        weight = torch.where(needed, torch.inf, weight)
        undoing = column(self._ending(best, number))
        points = torch.where(
            undoing,
            _lighter(problem.x, torch.where(column(half), nearest, full), weight),
            points,
        )
        again = (number % self._part == 0) & (number < self.steps - self._last) & best.isfinite()
        anew = column(again)
        points = torch.where(anew, torch.lerp(problem.x, nearest, _BACK), points)
        return _State(
            points=points,
            threshold=torch.where(again, self.threshold, threshold),
            mean=torch.where(anew, 0.0, mean),
            square=torch.where(anew, 0.0, square),
            nearest=nearest,
            full=full,
            best=best,
            weight=weight,
            began=torch.where(again, number, state.began),
            step=number,
        )

    def _falling(self, state: _State) -> Tensor:
        # Without an example there is nothing to begin a round at: the search goes on.
        own = torch.where(
            state.best.isfinite(), state.step % self._part / self._part, state.step / self.steps
        )
        return (1 + torch.cos(pi * own)) / 2

    def _ending(self, best: Tensor, step: Tensor) -> Tensor:
        return best.isfinite() & (step >= self.steps - self._last)

    def _unbiased(self, state: _State) -> Tensor:
        """What corrects Adam's averages, which begin at 0 in each round; the mean's only in the
        first, as a step of full length would lose the example that later ones begin at."""
        own = state.step - state.began + 1
        rate = torch.where(state.step // self._part % 2 == 1, *_RATES)
        rate = torch.where(state.began > 0, rate, 1 / (1 - 0.9**own))
        return (1 - 0.999**own).sqrt() * rate

    @property
    def _part(self) -> int:
        return ceil(self.steps / max(1, round(self.steps / self.period)))

    @property
    def _last(self) -> int:
        return min(_ENDING, self.steps // 5)


def _lighter(x: Tensor, points: Tensor, weight: Tensor) -> Tensor:
    """The points (B, ...) without the change of the least weight."""
    flat = torch.where(points == x, torch.inf, weight).flatten(1)
    least = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.argmin(1, keepdim=True), True)
    return torch.where(least.reshape(x.shape), x, points)


def _span(problem: Problem) -> Tensor:
    """The width (B, ...) of each feature's box, 1 where it has no end or no width."""
    span = problem.upper - problem.lower
    return torch.where(span.isfinite() & (span > 0), span, 1.0)
