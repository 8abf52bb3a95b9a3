"""Boundary attack: a random walk along the boundary towards x, from labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._decision import arc, begun, inside, orthogonal
from ._noise import normal
from ._problem import Problem
from ._rows import Rows

_START, _LINE, _ORTHOGONAL, _TOWARDS = range(4)


class _State(NamedTuple):
    phase: Tensor
    spent: Tensor
    tries: Tensor
    edge: Tensor  # the adversarial point of the walk
    aside: Tensor  # a step beside it at the same distance, that was adversarial
    low: Tensor  # angles on the line to x: still adversarial,
    high: Tensor  # and already right
    delta: Tensor  # size of the orthogonal step, as a share of the distance
    epsilon: Tensor  # size of the step towards x, likewise
    number: Tensor  # of steps


@dataclass(frozen=True, kw_only=True)
class BoundaryAttack(Attack):
    """The Boundary attack (Brendel et al. 2018, algorithm 1), L2, within `queries` a sample.

    Each step draws a normal direction, goes delta times the distance along its part orthogonal to
    the way from x, on the sphere around x, and if that is adversarial, epsilon times
    the distance towards x. Both sizes follow a trust region: steps aside are wanted to succeed
    about half of the time, steps towards x about a quarter, so each success and each
    failure moves them. The first adversarial point is brought to the boundary by bisection. 1 query
    a step, 2 where the first was adversarial. rows: as in `HopSkipJump`.
    """

    queries: int = 1000
    delta: float = 0.1
    epsilon: float = 0.05
    adaptation: float = 1.05
    tolerance: float = 0.005
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
            aside=problem.x,
            low=none,
            high=none + math.pi / 2,
            delta=none + self.delta,
            epsilon=none + self.epsilon,
            number=zero,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        column, phase = problem.column, state.phase
        points = arc(problem, state.edge, torch.zeros_like(problem.x), self._middle(state))
        nearer = problem.x + column(1 - state.epsilon) * (state.aside - problem.x)
        points = torch.where(column(phase == _TOWARDS), nearer, points)
        # Noise is dear: it is drawn only for the rows that ask for it.
        rows = (phase == _ORTHOGONAL).nonzero()[:, 0]
        if len(rows):
            points[rows] = self._beside(
                problem.take(rows), state.edge[rows], state.delta[rows], state.number[rows]
            )
        points, unstarted = begun(
            problem, points, phase == _START, state.tries, self.starts, self.rows
        )
        live = (state.spent < self.queries) & ~unstarted
        return Query(points[:, None], live[:, None], unstarted=unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        column, phase = problem.column, state.phase
        hit, point = seen.hit[:, 0], seen.points[:, 0]
        starting, lining, turning, nearing = (phase == p for p in range(4))
        low = torch.where(lining & hit, self._middle(state), state.low)
        high = torch.where(lining & ~hit, self._middle(state), state.high)
        precise = lining & (high - low <= self.tolerance)
        there = inside(problem, arc(problem, state.edge, torch.zeros_like(problem.x), low))
        edge = torch.where(column(precise), there, state.edge)
        edge = torch.where(column((starting | nearing) & hit), point, edge)
        # A step aside that led nowhere nearer is still a step of the walk.
        edge = torch.where(column(nearing & ~hit), state.aside, edge)
        beside = turning & hit
        next_phase = torch.where(beside, _TOWARDS, torch.where(starting & hit, _LINE, phase))
        next_phase = torch.where(precise | nearing, _ORTHOGONAL, next_phase)
        grown, shrunk = self.adaptation, 1 / self.adaptation
        # Success in half of the steps, or in a quarter, keeps the size.
        delta = torch.where(turning, torch.where(hit, grown, shrunk), 1.0) * state.delta
        epsilon = torch.where(nearing, torch.where(hit, grown**3, shrunk), 1.0) * state.epsilon
        return _State(
            phase=next_phase,
            spent=state.spent + 1,
            tries=state.tries + starting,
            edge=edge,
            aside=torch.where(column(beside), point, state.aside),
            low=low,
            high=high,
            delta=delta.clamp(1e-4, 1.0),
            epsilon=epsilon.clamp(1e-5, 0.5),
            number=state.number + turning,
        )

    def _middle(self, state: _State) -> Tensor:
        return (state.low + state.high) / 2

    def _beside(self, problem: Problem, edge: Tensor, delta: Tensor, number: Tensor) -> Tensor:
        """A random point (B, ...) beside the edge, as far from x as the edge is."""
        away = edge - problem.x
        noise = normal(problem, 1, number, away[0].numel()).reshape(away.shape)
        noise = orthogonal(noise * (problem.upper > problem.lower), away)
        size = problem.column(length(away, "l2"))
        angle = problem.column(torch.atan(delta))
        return problem.x + angle.cos() * away + angle.sin() * size * noise
