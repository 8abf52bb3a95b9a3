"""SurFree: along semicircles in random planes, from labels alone and without a surrogate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Attack, Query, Seen
from ._decision import arc, begun, inside, orthogonal, relaxed, waves
from ._problem import Problem
from ._rows import Rows

_START, _LINE, _SIGN, _ANGLE = range(4)


class _State(NamedTuple):
    phase: Tensor
    spent: Tensor
    tries: Tensor
    edge: Tensor  # adversarial once cut to the box
    across: Tensor  # where the semicircle bulges, with its sign; zero for the straight line
    number: Tensor  # of directions
    trial: Tensor  # of a direction: signs and angles
    low: Tensor  # angles on the semicircle: still adversarial,
    high: Tensor  # and already right
    most: Tensor  # the first angle to try: theta max
    steps: Tensor  # of bisection


@dataclass(frozen=True, kw_only=True)
class SurFree(Attack):
    """SurFree (Maho et al. 2021), L2, within `queries` a sample.

    Each iteration draws a direction orthogonal to the way from x, tries both its signs at `angles`
    angles from theta max downwards, and bisects the angle on the semicircle of
    the first adversarial one, whose points are all nearer to x. Theta max grows by kappa
    with each success and shrinks with each failure. Directions come in families that are
    orthogonal to each other by construction, instead of orthogonal to the last hundred. 1 query a
    step. rows: as in `HopSkipJump`.
    """

    queries: int = 1000
    angles: int = 1
    theta: float = 30.0
    kappa: float = 0.02
    bisections: int = 1
    tolerance: float = 0.005
    smoothness: float = 4.0
    fade: float = 2.0
    starts: int = 100
    rows: Rows | None = None
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("l2",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        zero, none = torch.zeros_like(problem.lane), torch.zeros_like(problem.eps)
        return _State(
            phase=zero,
            spent=zero,
            tries=zero,
            edge=problem.x,
            across=torch.zeros_like(problem.x),
            number=zero,
            trial=zero,
            low=none,
            high=none + math.pi / 2,
            most=none + math.radians(self.theta),
            steps=zero,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        points = arc(problem, state.edge, state.across, self._angle(state))
        starting = state.phase == _START
        points, unstarted = begun(problem, points, starting, state.tries, self.starts, self.rows)
        live = (state.spent < self.queries) & ~unstarted
        return Query(points[:, None], live[:, None], unstarted=unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        column, phase, hit = problem.column, state.phase, seen.hit[:, 0]
        starting, lining, signing, turning = (phase == p for p in range(4))
        angle = self._angle(state)
        landed, found = starting & hit, signing & hit
        trial = state.trial + signing
        # The next larger angle was tried in vain; beyond theta max nothing was.
        above = torch.where(
            state.trial < 2, 2 * angle.abs(), angle.abs() + state.most / self.angles
        )
        low = torch.where((lining | turning) & hit, angle, state.low)
        high = torch.where((lining | turning) & ~hit, angle, state.high)
        low = torch.where(found, angle.abs(), low)
        high = torch.where(found, above.clamp_max(math.pi / 2), high)
        steps = torch.where(found, 0, state.steps + turning)
        failed = signing & ~hit & (trial >= 2 * self.angles)
        done = turning & (steps >= self.bisections)
        done = done | (lining & (high - low <= self.tolerance))
        across = torch.where(column(found & (angle < 0)), -state.across, state.across)
        there = relaxed(problem, arc(problem, state.edge, across, low))
        edge = torch.where(column(done), there, state.edge)
        edge = torch.where(column(landed), seen.points[:, 0], edge)
        fresh = done | failed
        rows = fresh.nonzero()[:, 0]
        if len(rows):
            across = across.clone()
            across[rows] = self._direction(problem.take(rows), edge[rows], state.number[rows])
        next_phase = torch.where(fresh, _SIGN, torch.where(found, _ANGLE, phase))
        change = torch.where(found, 1 / (1 - self.kappa), torch.where(failed, 1 - self.kappa, 1.0))
        return _State(
            phase=torch.where(landed, _LINE, next_phase),
            spent=state.spent + 1,
            tries=state.tries + starting,
            edge=edge,
            across=across,
            number=state.number + fresh,
            trial=torch.where(fresh, 0, trial),
            low=torch.where(landed, 0.0, low),
            high=torch.where(landed, math.pi / 2, high),
            most=(state.most * change).clamp(self.tolerance, math.pi / 4),
            steps=steps,
        )

    def _angle(self, state: _State) -> Tensor:
        """The angle (B,) to ask; a negative one is on the other side."""
        share = 1 - (state.trial // 2) / self.angles
        sign = 1 - 2 * (state.trial % 2)
        middle = (state.low + state.high) / 2
        return torch.where(state.phase == _SIGN, sign * share * state.most, middle)

    def _direction(self, problem: Problem, edge: Tensor, number: Tensor) -> Tensor:
        smoothness = self.smoothness / (1 + self.fade * number / edge[0].numel())
        wave = waves(problem, 1, number[:, None], smoothness)[:, 0]
        return orthogonal(wave, inside(problem, edge) - problem.x)
