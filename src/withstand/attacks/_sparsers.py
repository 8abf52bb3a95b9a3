"""Sparse-RS: random search over which few features to change, from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Attack, Query, Seen
from ._noise import uniform
from ._problem import Problem
from ._square import _picture, _signs

# By what alpha is divided from these shares of the queries on, in L0 and in patches (Croce et al.
# 2022, and the authors' code).
_MARKS = (0.0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_L0 = (1, 2, 2, 4, 5, 6, 8, 10, 12, 15, 20)
_PATCH = (1, 1, 2, 4, 8, 16, 32, 32, 64, 64, 128)


class _State(NamedTuple):
    best: Tensor
    best_margin: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class SparseRS(Attack):
    """Sparse-RS (Croce et al. 2022, algorithm 1): L0, and patches and frames given as a mask.

    In L0 each step moves a share of the changed features elsewhere, to random corners of the box,
    and keeps what does not raise the margin. alpha: that share at first. A threat with an Linf ball
    lets all features of its mask change at once: then each step paints a square of the mask, at
    first of the share alpha_patch, in a random colour. 1 forward a step.
    """

    queries: int = 5000
    alpha: float = 0.3
    alpha_patch: float = 0.4
    needs: ClassVar[Access] = "scores"
    norms: ClassVar = ("l0", "linf")

    def init(self, problem: Problem) -> _State:
        worst = torch.full_like(problem.eps, torch.inf)
        return _State(problem.x, worst, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        move = self._moved if problem.norm == "l0" else self._painted
        return Query(move(problem, state), state.step < self.queries)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.scores is not None
        margin = problem.goal.margin(seen.scores, problem.y)
        # Equals are taken too: rounded or stepped scores have plateaus that must be crossed.
        better = margin <= state.best_margin
        return _State(
            best=torch.where(problem.column(better), seen.points, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
            step=state.step + 1,
        )

    def _share(self, state: _State, first: float, divisors: tuple[int, ...]) -> Tensor:
        """Alpha (B,) in float64: it is rounded down, and must not be a little too small."""
        device = state.step.device
        marks = torch.tensor(_MARKS, dtype=torch.float64, device=device) * self.queries
        shares = torch.tensor([first / n for n in divisors], dtype=torch.float64, device=device)
        return shares[(state.step[:, None] > marks).sum(1)]

    def _moved(self, problem: Problem, state: _State) -> Tensor:
        x, lower, upper, best = (
            t.flatten(1) for t in (problem.x, problem.lower, problem.upper, state.best)
        )
        free = upper > lower
        n = free.sum(1)
        most = torch.minimum(problem.eps.floor(), n.to(problem.eps.dtype)).long()
        swapped = (self._share(state, self.alpha, _L0) * most).long().clamp_min(1)
        swapped = torch.where(state.step == 0, most, torch.minimum(swapped, most))
        all_of_them = (most == n)[:, None]
        # What is changed differs from x, unless all that is free may change.
        changed = (best != x) | all_of_them
        # The changed features in random order, then the others, then the frozen ones.
        key = uniform(problem, 1, state.step, x.shape[1]) + torch.where(changed, 0.0, 1.0)
        order = torch.where(free, key, 3.0).argsort(dim=1, stable=True)
        place = torch.arange(x.shape[1], device=x.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, place)
        # Where there are too few others, some of the features that were let go are taken again.
        again = rank < (most + swapped - n)[:, None]
        most, swapped = most[:, None], swapped[:, None]
        taken = free & ((rank >= swapped) & (rank < most + swapped) | again)
        fresh = (rank >= most) | again
        high = uniform(problem, 2, state.step, x.shape[1]) > 0.5
        corner = torch.where(high, upper, lower)
        # A corner in which x is already would waste one of the few features.
        wasted = (corner == x) & ~all_of_them
        corner = torch.where(wasted, torch.where(high, lower, upper), corner)
        points = torch.where(taken, torch.where(fresh, corner, best), x)
        return points.reshape(problem.x.shape)

    def _painted(self, problem: Problem, state: _State) -> Tensor:
        shape = b, c, h, w = _picture(problem.x)
        lower, upper, best = (t.reshape(shape) for t in (problem.lower, problem.upper, state.best))
        stripes = _signs(problem, 3, 0, c * w).reshape(b, c, 1, w)
        free = (upper > lower).any(1).flatten(1)
        area = self._share(state, self.alpha_patch, _PATCH) * free.sum(1)
        side = area.sqrt().long().clamp(1, h) if h > 1 else torch.ones_like(free.sum(1))
        across = side if h > 1 else area.long().clamp_min(1)
        # Squares lie around a free cell: elsewhere most of them would change nothing.
        place = uniform(problem, 4, state.step, 3)
        number = (place[:, 0].double() * free.sum(1)).long() + 1
        anchor = (free.cumsum(1) == number[:, None]).int().argmax(1)
        top = anchor // w - (place[:, 1] * side).long()
        left = anchor % w - (place[:, 2] * across).long()
        row = torch.arange(h, device=top.device) - top[:, None]
        column = torch.arange(w, device=top.device) - left[:, None]
        inside = ((row >= 0) & (row < side[:, None]))[:, None, :, None]
        inside = inside & ((column >= 0) & (column < across[:, None]))[:, None, None, :]
        colour = _signs(problem, 5, state.step, c)[:, :, None, None]
        first = (state.step == 0)[:, None, None, None]
        high = torch.where(first, stripes, colour) > 0
        painted = torch.where(high, upper, lower)
        return torch.where(inside | first, painted, best).reshape(problem.x.shape)
