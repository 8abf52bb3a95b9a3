"""CGBA: along a semicircle in the plane of the boundary's normal, from labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._decision import arc, begun, inside, orthogonal, relaxed, waves
from ._problem import Problem
from ._rows import Rows

_START, _SEARCH, _ESTIMATE = range(3)
# What the last search takes, and up to how many estimates' queries the last estimate takes alone.
_KEPT, _ALONE = 8, 1.6


class _State(NamedTuple):
    phase: Tensor
    spent: Tensor
    tries: Tensor
    edge: Tensor  # adversarial once cut to the box: the semicircle's beginning; x is its end
    across: Tensor  # where the semicircle bulges; zero for the straight line
    low: Tensor  # angles on the semicircle: still adversarial,
    high: Tensor  # and already right
    turn: Tensor  # the angle of the last iteration
    drawn: Tensor  # directions in all,
    counted: Tensor  # and in this iteration
    hits: Tensor
    sum: Tensor  # of directions,
    signed: Tensor  # and of directions times +1 where adversarial, else -1
    iteration: Tensor


@dataclass(frozen=True, kw_only=True)
class CGBA(Attack):
    """CGBA (Reza et al. 2023), L2, within `queries` a sample.

    Each iteration estimates the boundary's normal from draws * sqrt(t) directions, and
    bisects the angle on the semicircle that has its ends in the boundary point and x, in the plane
    of the normal: no point of it is farther from x than its beginning. Where this
    differs from the paper: directions are orthogonal to each other and to the way from x, along
    which nothing is to be learned, and smooth ones only come first (fade) instead of alone; votes
    are less their mean; points are cut to the box when they are asked, not when they are kept; and
    the last estimate takes what queries are left, but for a search. A row asks up to `block` points
    at a time. rows: as in `HopSkipJump`.
    """

    queries: int = 1000
    draws: int = 25
    radius: float = 0.05
    tolerance: float = 0.005
    smoothness: float = 8.0
    fade: float = 8.0
    starts: int = 100
    rows: Rows | None = None
    block: int = 64
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("l2",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        zero, none = torch.zeros_like(problem.lane), torch.zeros_like(problem.eps)
        nowhere = torch.zeros_like(problem.x)
        return _State(
            phase=zero,
            spent=zero,
            tries=zero,
            edge=problem.x,
            across=nowhere,
            low=none,
            high=none + math.pi / 2,
            turn=none + math.pi / 4,
            drawn=zero,
            counted=zero,
            hits=zero,
            sum=nowhere,
            signed=nowhere,
            iteration=zero,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        starting = state.phase == _START
        single = arc(problem, state.edge, state.across, self._angle(state))
        single, unstarted = begun(problem, single, starting, state.tries, self.starts, self.rows)
        going = (state.spent < self.queries) & ~unstarted
        rows = ((state.phase == _ESTIMATE) & going).nonzero()[:, 0]
        if not len(rows):
            return Query(single[:, None], going[:, None], unstarted=unstarted)
        asked = torch.where(state.phase == _ESTIMATE, self._asked(state), 1)
        points = single.new_empty(len(single), self.block, *single.shape[1:])
        points[:, 0] = single
        points[rows] = self._around(problem.take(rows), state.edge[rows], state.drawn[rows])
        live = torch.arange(self.block, device=asked.device) < asked[:, None]
        return Query(points, going[:, None] & live, unstarted=unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        column, phase, hit = problem.column, state.phase, seen.hit[:, 0]
        starting, searching, estimating = (phase == p for p in (_START, _SEARCH, _ESTIMATE))
        asked = torch.where(estimating, self._asked(state), 1)
        total, signed, hits = state.sum, state.signed, state.hits
        if seen.points.shape[1] > 1:
            rows = estimating.nonzero()[:, 0]
            valid = torch.arange(self.block, device=rows.device) < asked[rows, None]
            sub = problem.take(rows)
            edge = inside(sub, state.edge[rows])
            # What moved counts, not what was meant to: the box cuts one side of many features.
            moved = (seen.points[rows] - edge[:, None]).flatten(2)
            vote = torch.where(seen.hit[rows], 1.0, -1.0) * valid
            sums = torch.bmm(torch.stack((valid.float(), vote), 1), moved)
            total, signed, hits = total.clone(), signed.clone(), hits.clone()
            total[rows] += sums[:, 0].reshape(edge.shape)
            signed[rows] += sums[:, 1].reshape(edge.shape)
            hits[rows] += (seen.hit[rows] & valid).sum(1)
        counted = state.counted + torch.where(estimating, asked, 0)

        angle = self._angle(state)
        low = torch.where(searching & hit, angle, state.low)
        high = torch.where(searching & ~hit, angle, state.high)
        landed = starting & hit
        precise = searching & (high - low <= self.tolerance)
        there = relaxed(problem, arc(problem, state.edge, state.across, low))
        edge = torch.where(column(precise), there, state.edge)
        edge = torch.where(column(landed), seen.points[:, 0], edge)
        estimated = estimating & (counted >= self._wanted(state))
        mean = (2 * hits - counted) / counted.clamp_min(1)
        # All votes on one side: their mean says where to go.
        baseline = torch.where(mean.abs() == 1, 0.0, mean)
        normal = orthogonal(signed - column(baseline) * total, inside(problem, edge) - problem.x)
        fresh = landed | estimated
        turned = precise & (state.iteration > 0)
        return _State(
            phase=torch.where(fresh, _SEARCH, torch.where(precise, _ESTIMATE, phase)),
            spent=state.spent + asked,
            tries=state.tries + starting,
            edge=edge,
            across=torch.where(column(estimated), normal, state.across),
            low=torch.where(fresh, 0.0, low),
            high=torch.where(fresh, math.pi / 2, high),
            turn=torch.where(turned, low.clamp(self.tolerance, math.pi / 4), state.turn),
            drawn=state.drawn + torch.where(estimating, asked, 0),
            counted=torch.where(precise, 0, counted),
            hits=torch.where(precise, 0, hits),
            sum=torch.where(column(precise), 0.0, total),
            signed=torch.where(column(precise), 0.0, signed),
            iteration=state.iteration + precise,
        )

    def _angle(self, state: _State) -> Tensor:
        """The next angle (B,): the last iteration's, doubled until it is too much, then halves."""
        middle = (state.low + state.high) / 2
        reach = torch.where(state.low > 0, 2 * state.low, state.turn)
        return torch.where(state.high > 1.57, torch.minimum(reach, middle), middle)

    def _wanted(self, state: _State) -> Tensor:
        """Directions (B,) of this estimate; one that is cut off in the end is for nothing."""
        wanted = (self.draws * state.iteration.sqrt()).long()
        left = self.queries - (state.spent - state.counted) - _KEPT
        return torch.where(left < _ALONE * wanted, left.clamp_min(1), wanted)

    def _asked(self, state: _State) -> Tensor:
        left = torch.minimum(self._wanted(state) - state.counted, self.queries - state.spent)
        return left.clamp(0, self.block)

    def _around(self, problem: Problem, edge: Tensor, first: Tensor) -> Tensor:
        """Points (B, M, ...) around the edge, in directions number `first` (B,) and on."""
        delta = inside(problem, edge) - problem.x
        number = first[:, None] + torch.arange(self.block, device=first.device)
        smoothness = self.smoothness / (1 + self.fade * first / edge[0].numel())
        moves = orthogonal(waves(problem, 1, number, smoothness), delta)
        size = problem.column(self.radius * length(delta, "l2"))
        return inside(problem, edge[:, None] + moves * size[:, None])
