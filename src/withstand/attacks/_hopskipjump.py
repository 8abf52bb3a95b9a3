"""HopSkipJump: along the decision boundary towards x, from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._decision import begun, between
from ._noise import spread
from ._problem import Problem
from ._rows import Rows

_START, _SEARCH, _ESTIMATE, _JUMP = range(4)
_CACHED = 65_536


class _State(NamedTuple):
    phase: Tensor
    spent: Tensor
    tries: Tensor
    far: Tensor  # an adversarial point: the end of the binary search
    low: Tensor  # shares of the way from x to far: still right,
    high: Tensor  # and already adversarial
    edge: Tensor  # the adversarial point at the boundary
    drawn: Tensor
    hits: Tensor
    sum: Tensor  # of directions,
    signed: Tensor  # and of directions times +1 where adversarial, else -1
    iteration: Tensor
    jump: Tensor


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """HopSkipJump (Chen et al. 2020, algorithm 2), L2 and Linf, within `queries` a sample.

    Each iteration finds the boundary by bisection, estimates its normal from draws * sqrt(t)
    random directions (of uniform numbers, in L2 too), and jumps outwards along it. It starts from
    `rows` (`Donors`, `Examples`) if there are any, else from plain pictures and noise, at most
    `starts` of them, and says so if none is adversarial. A row asks up to `block` points at a time.
    """

    queries: int = 1000
    draws: int = 100
    starts: int = 100
    rows: Rows | None = None
    block: int = 64
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("l2", "linf")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        zero, none = torch.zeros_like(problem.lane), torch.zeros_like(problem.eps)
        return _State(
            phase=zero,
            spent=zero,
            tries=zero,
            far=problem.x,
            low=none,
            high=none + 1,
            edge=problem.x,
            drawn=zero,
            hits=zero,
            sum=torch.zeros_like(problem.x),
            signed=torch.zeros_like(problem.x),
            iteration=zero + 1,
            jump=none,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        column = problem.column
        single = torch.where(
            column(state.phase == _SEARCH),
            between(problem, state.far, (state.low + state.high) / 2),
            state.edge + column(state.jump) * self._normal(problem, state),
        )
        starting = state.phase == _START
        single, unstarted = begun(problem, single, starting, state.tries, self.starts, self.rows)
        left = self.queries - state.spent
        going = (left > 0) & ~unstarted
        # Noise is dear: it is drawn only for the rows that ask for it.
        rows = ((state.phase == _ESTIMATE) & going).nonzero()[:, 0]
        if not len(rows):
            return Query(single[:, None], going[:, None], unstarted=unstarted)
        slots = torch.arange(self.block, device=problem.x.device)
        wanted = torch.minimum(self._draws(state) - state.drawn, left).clamp_max(self.block)
        wanted = torch.where(state.phase == _ESTIMATE, wanted, 1)
        points = single.new_empty(len(single), self.block, *single.shape[1:])
        points[:, 0] = single
        sub, first = problem.take(rows), state.drawn[rows, None]
        number = state.iteration[rows, None] * 100_003 + first + slots
        radius = self._radius(sub, state.edge[rows], state.iteration[rows])
        points[rows] = self._around(sub, state.edge[rows], radius, number)
        return Query(points, going[:, None] & (slots < wanted[:, None]), unstarted=unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        column = problem.column
        phase, hit, point = state.phase, seen.hit[:, 0], seen.points[:, 0]
        starting, searching = phase == _START, phase == _SEARCH
        estimating, jumping = phase == _ESTIMATE, phase == _JUMP
        asked = torch.ones_like(state.spent)
        total, signed, hits, drawn = state.sum, state.signed, state.hits, state.drawn
        if seen.points.shape[1] > 1:
            rows = estimating.nonzero()[:, 0]
            left = torch.minimum(self._draws(state) - drawn, self.queries - state.spent)[rows]
            count = left.clamp_max(self.block).clamp_min(0)
            counted = torch.arange(self.block, device=left.device) < count[:, None]
            sub, edge = problem.take(rows), state.edge[rows]
            radius = self._radius(sub, edge, state.iteration[rows]).clamp_min(1e-12)
            vote = torch.where(seen.hit[rows], 1.0, -1.0) * counted
            weights = torch.stack((counted.float(), vote), 1)
            # A product for each row: its rounding does not depend on how many there are.
            parts = zip(weights, rows.tolist(), edge, strict=True)
            sums = torch.stack([w @ (seen.points[row] - e).flatten(1) for w, row, e in parts])
            sums /= radius[:, None, None]
            total, signed = total.clone(), signed.clone()
            total[rows] += sums[:, 0].reshape(edge.shape)
            signed[rows] += sums[:, 1].reshape(edge.shape)
            asked[rows] = count
            drawn, hits = drawn.clone(), hits.clone()
            drawn[rows] += count
            hits[rows] += (seen.hit[rows] & counted).sum(1)

        landed = hit & (starting | jumping)
        middle = (state.low + state.high) / 2
        low = torch.where(searching & ~hit, middle, state.low)
        high = torch.where(searching & hit, middle, state.high)
        low, high = torch.where(landed, 0.0, low), torch.where(landed, 1.0, high)
        far = torch.where(column(landed), point, state.far)
        precise = searching & (high - low <= self._tolerance(problem))
        edge = torch.where(column(precise), between(problem, far, high), state.edge)
        estimated = estimating & (drawn >= self._draws(state))
        lost = jumping & ~hit
        # After many halvings the boundary is too flat to leave: the same place is estimated again.
        stuck = lost & (state.jump < 1e-4 * length(edge - problem.x, problem.norm))
        next_phase = torch.where(landed, _SEARCH, phase)
        next_phase = torch.where(precise | stuck, _ESTIMATE, next_phase)
        next_phase = torch.where(estimated, _JUMP, next_phase)
        afresh = precise | stuck
        reach = length(edge - problem.x, problem.norm) / state.iteration.sqrt()
        return _State(
            phase=next_phase,
            spent=state.spent + asked,
            tries=state.tries + starting,
            far=far,
            low=low,
            high=high,
            edge=edge,
            drawn=torch.where(afresh, 0, drawn),
            hits=torch.where(afresh, 0, hits),
            sum=torch.where(column(afresh), 0.0, total),
            signed=torch.where(column(afresh), 0.0, signed),
            iteration=state.iteration + (stuck | (landed & jumping)),
            jump=torch.where(estimated, reach, state.jump / (1 + lost.float())),
        )

    def _draws(self, state: _State) -> Tensor:
        return (self.draws * state.iteration.sqrt()).long().clamp_max(10_000)

    def _tolerance(self, problem: Problem) -> float:
        """Theta, as a share of the distance."""
        features = problem.x[0].numel()
        return 0.01 / (sqrt(features) if problem.norm == "l2" else features)

    def _radius(self, problem: Problem, edge: Tensor, iteration: Tensor) -> Tensor:
        """How far from the boundary directions are tried (B,)."""
        size = length(edge - problem.x, problem.norm)
        return torch.where(iteration > 1, 0.01, 0.1) * size

    def _around(self, problem: Problem, edge: Tensor, radius: Tensor, number: Tensor) -> Tensor:
        """Points (B, M, ...) at an L2 distance (B,) from the edge, cut to the box."""
        elements = edge[0].numel()
        points = spread(problem, 1, number, elements).reshape(*number.shape, *edge.shape[1:])
        # Few rows at a time: their directions stay in the processor's cache, those of all do not.
        size = max(1, _CACHED // points[0].numel())
        for part in (slice(i, i + size) for i in range(0, len(points), size)):
            some = points[part]
            scale = radius[part, None] / torch.linalg.vector_norm(some.flatten(2), dim=2)
            some.mul_(scale.reshape(*scale.shape, *(1,) * (edge.ndim - 1))).add_(edge[part, None])
            lower, upper = problem.lower[part, None], problem.upper[part, None]
            torch.clamp(some, lower, upper, out=some)
        return points

    def _normal(self, problem: Problem, state: _State) -> Tensor:
        """The estimated direction (B, ...) away from x's class: the estimate less its baseline."""
        n = state.drawn.clamp_min(1)
        mean = (2 * state.hits - state.drawn) / n
        # All draws on one side: their mean says where to go.
        one_sided = mean.abs() == 1
        baseline = torch.where(one_sided, 0.0, mean)
        normal = state.signed - problem.column(baseline) * state.sum
        if problem.norm == "linf":
            return normal.sign()
        return normal / problem.column(length(normal, "l2").clamp_min(1e-12))
