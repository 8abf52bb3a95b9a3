"""Sign-OPT: descent on the distance to the boundary along a direction, from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._decision import begun, inside, unit
from ._noise import normal
from ._problem import Problem
from ._rows import Rows

_START, _RADIUS, _ESTIMATE, _STEP = range(4)


class _State(NamedTuple):
    phase: Tensor
    spent: Tensor
    tries: Tensor
    ray: Tensor  # theta: the best direction, of length 1
    radius: Tensor  # g(theta): how far the boundary is along it
    trial: Tensor  # the direction that is searched or asked
    low: Tensor  # distances along trial: still right,
    high: Tensor  # and already adversarial
    gradient: Tensor
    counted: Tensor  # directions in this iteration
    rate: Tensor
    iteration: Tensor


@dataclass(frozen=True, kw_only=True)
class SignOPT(Attack):
    """Sign-OPT (Cheng et al. 2020, algorithm 1), L2, within `queries` a sample.

    Minimises the distance g(theta) to the boundary along theta. Each iteration asks `draws`
    directions near theta at that distance: whether they are adversarial there is the sign of the
    derivative, 1 query each. A step against their sum is tried at the rate of the
    iteration before and at halves of it, 1 query each, until it is nearer; its distance is then
    bisected, and the rate doubles. A row asks up to `block` points at a time. rows: as in
    `HopSkipJump`.
    """

    queries: int = 1000
    draws: int = 30
    smoothing: float = 0.05
    rate: float = 0.5
    tolerance: float = 0.001
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
            ray=nowhere,
            radius=none,
            trial=nowhere,
            low=none,
            high=none,
            gradient=nowhere,
            counted=zero,
            rate=none + self.rate,
            iteration=zero,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        starting = state.phase == _START
        reach = torch.where(state.phase == _STEP, self._nearer(state), self._middle(state))
        single = problem.x + problem.column(reach) * state.trial
        single, unstarted = begun(problem, single, starting, state.tries, self.starts, self.rows)
        going = (state.spent < self.queries) & ~unstarted
        rows = ((state.phase == _ESTIMATE) & going).nonzero()[:, 0]
        if not len(rows):
            return Query(single[:, None], going[:, None], unstarted=unstarted)
        asked = torch.where(state.phase == _ESTIMATE, self._asked(state), 1)
        points = single.new_empty(len(single), self.block, *single.shape[1:])
        points[:, 0] = single
        sub = problem.take(rows)
        near = self._near(sub, state.ray[rows], state.iteration[rows], state.counted[rows])
        away = near * sub.column(state.radius[rows])[:, None]
        points[rows] = inside(sub, sub.x[:, None] + away)
        live = torch.arange(self.block, device=asked.device) < asked[:, None]
        return Query(points, going[:, None] & live, unstarted=unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        column, phase, hit = problem.column, state.phase, seen.hit[:, 0]
        starting, searching = phase == _START, phase == _RADIUS
        estimating, stepping = phase == _ESTIMATE, phase == _STEP
        asked = torch.where(estimating, self._asked(state), 1)
        gradient = state.gradient
        if seen.points.shape[1] > 1:
            rows = estimating.nonzero()[:, 0]
            valid = torch.arange(self.block, device=rows.device) < asked[rows, None]
            sub, ray = problem.take(rows), state.ray[rows]
            near = self._near(sub, ray, state.iteration[rows], state.counted[rows])
            # Adversarial at g(theta) means that the boundary is nearer there.
            vote = torch.where(seen.hit[rows], -1.0, 1.0) * valid
            moved = (near - ray[:, None]).flatten(2)
            gradient = gradient.clone()
            gradient[rows] += torch.bmm(vote[:, None], moved)[:, 0].reshape(ray.shape)
        counted = state.counted + torch.where(estimating, asked, 0)
        estimated = estimating & (counted >= self.draws)
        landed, better = starting & hit, stepping & hit
        found = torch.where(column(landed), seen.points[:, 0] - problem.x, state.trial)
        middle = self._middle(state)
        low = torch.where(searching & ~hit, middle, state.low)
        high = torch.where(searching & hit, middle, state.high)
        low = torch.where(landed | better, 0.0, low)
        high = torch.where(landed, length(found, "l2"), high)
        high = torch.where(better, self._nearer(state), high)
        # A step gains little: its distance is first sought close to the old one.
        low = torch.where(better, 0.9 * high, low)
        precise = searching & (high - low <= self.tolerance * high)
        failed = stepping & ~hit
        given_up = failed & (state.rate < 1e-3)
        rate = torch.where(failed, state.rate / 2, torch.where(better, 2 * state.rate, state.rate))
        rate = torch.where(given_up, self.rate, rate).clamp_max(2 * self.rate)
        ray = torch.where(column(precise), state.trial, state.ray)
        downhill = ray - column(rate) * unit(gradient)
        trial = torch.where(column(landed), unit(found), state.trial)
        trial = torch.where(column(estimated | (failed & ~given_up)), unit(downhill), trial)
        next_phase = torch.where(landed | better, _RADIUS, phase)
        fresh = precise | given_up
        next_phase = torch.where(fresh, _ESTIMATE, torch.where(estimated, _STEP, next_phase))
        return _State(
            phase=next_phase,
            spent=state.spent + asked,
            tries=state.tries + starting,
            ray=ray,
            radius=torch.where(precise, high, state.radius),
            trial=trial,
            low=low,
            high=high,
            gradient=torch.where(column(fresh), 0.0, gradient),
            counted=torch.where(fresh, 0, counted),
            rate=rate,
            iteration=state.iteration + fresh,
        )

    def _middle(self, state: _State) -> Tensor:
        return (state.low + state.high) / 2

    def _nearer(self, state: _State) -> Tensor:
        """The distance (B,) at which a step must be adversarial to be taken."""
        return (1 - self.tolerance) * state.radius

    def _asked(self, state: _State) -> Tensor:
        left = torch.minimum(self.draws - state.counted, self.queries - state.spent)
        return left.clamp(0, self.block)

    def _near(self, problem: Problem, ray: Tensor, iteration: Tensor, first: Tensor) -> Tensor:
        """Directions (B, M, ...) of length 1 near the ray: theta + epsilon u."""
        number = first[:, None] + torch.arange(self.block, device=first.device)
        noise = normal(problem, 1, iteration[:, None] * 100_003 + number, ray[0].numel())
        noise = noise.reshape(*number.shape, *ray.shape[1:])
        noise = unit(noise * (problem.upper > problem.lower)[:, None], 2)
        return unit(ray[:, None] + self.smoothing * noise, 2)
