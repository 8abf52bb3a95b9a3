"""RayS: flips of signs in blocks that halve, from labels alone and without a step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Attack, Query, Seen
from ._decision import inside, start
from ._problem import Problem

_START, _FLIP, _RADIUS = range(3)


class _State(NamedTuple):
    phase: Tensor
    spent: Tensor
    tries: Tensor
    signs: Tensor  # of the ray, for each feature
    radius: Tensor  # the least one that is adversarial on the ray
    low: Tensor  # the greatest one known to be right on the ray
    gap: Tensor  # by how much the radius shrinks next
    blocks: Tensor  # into how many the features are cut,
    block: Tensor  # and which one is flipped


@dataclass(frozen=True, kw_only=True)
class RayS(Attack):
    """RayS (Chen and Gu 2020), its hierarchical search, Linf, within `queries` a sample.

    A ray is one sign for each feature. Each step flips the signs of one block; if that is
    adversarial at a radius smaller by the share `tolerance`, the flip stays, and the radius shrinks
    in doubling steps, then by bisection, to that precision (the paper bisects from zero, which
    costs more where gains are small). Blocks are halved after each has been flipped, and begin
    anew after single features. Features that cannot change are in no block. 1 query a step.
    """

    queries: int = 1000
    tolerance: float = 0.002
    starts: int = 100
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("linf",)
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        zero, none = torch.zeros_like(problem.lane), torch.zeros_like(problem.eps)
        room = torch.maximum(problem.upper - problem.x, problem.x - problem.lower)
        return _State(
            phase=zero,
            spent=zero,
            tries=zero,
            signs=torch.ones_like(problem.x),
            radius=room.flatten(1).amax(1),
            low=none,
            gap=none,
            blocks=zero + 1,
            block=zero,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        starting = state.phase == _START
        unstarted = starting & (state.tries >= self.starts)
        live = (state.spent < self.queries) & ~unstarted
        points = problem.x + problem.column(self._next(state)) * self._ray(problem, state)
        return Query(inside(problem, points)[:, None], live[:, None], unstarted=unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        phase, hit = state.phase, seen.hit[:, 0]
        starting, flipping, shrinking = (phase == p for p in (_START, _FLIP, _RADIUS))
        asked = self._next(state)
        kept = hit & ~shrinking
        radius = torch.where(hit, asked, state.radius)
        low = torch.where(shrinking & ~hit, asked, torch.where(kept, 0.0, state.low))
        # A first radius is halved; what a flip gains is little.
        gap = torch.where(flipping, self.tolerance * radius, 0.5 * radius)
        gap = torch.where(kept, gap, torch.where(shrinking, 2 * state.gap, state.gap))
        done = shrinking & (radius - low <= self.tolerance * radius)
        ended = done | (flipping & ~hit)
        # The first radius was that of one block with all features.
        block = state.block + ended
        last = ended & (block >= state.blocks)
        features = self._order(problem)[1]
        blocks = torch.where(last, torch.minimum(2 * state.blocks, features), state.blocks)
        blocks = torch.where(last & (state.blocks >= features), 2, blocks)
        ray = self._ray(problem, state)
        return _State(
            phase=torch.where(kept, _RADIUS, torch.where(done, _FLIP, phase)),
            spent=state.spent + 1,
            tries=state.tries + starting,
            signs=torch.where(problem.column(kept), ray, state.signs),
            radius=radius,
            low=low,
            gap=gap,
            blocks=blocks,
            block=torch.where(last, 0, block),
        )

    def _next(self, state: _State) -> Tensor:
        """The radius (B,) to ask."""
        middle = (state.low + state.radius) / 2
        shrunk = torch.maximum(state.radius - state.gap, middle)
        smaller = (1 - self.tolerance) * state.radius
        shrunk = torch.where(state.phase == _FLIP, smaller, shrunk)
        return torch.where(state.phase == _START, state.radius, shrunk)

    def _ray(self, problem: Problem, state: _State) -> Tensor:
        """The signs (B, ...) to ask: those of a starting point, or with a block flipped."""
        starting, flipping = state.phase == _START, state.phase == _FLIP
        begun = start(problem, state.tries, starting) - problem.x
        order, features = self._order(problem)
        flipped = order * problem.column(state.blocks) // problem.column(features)
        flipped = (flipped == problem.column(state.block)) & problem.column(flipping)
        signs = torch.where(flipped, -state.signs, state.signs)
        return torch.where(problem.column(starting), torch.where(begun < 0, -1.0, 1.0), signs)

    def _order(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """The place (B, ...) of each feature among those that can change, and their count (B,)."""
        free = (problem.upper > problem.lower).flatten(1)
        order = free.cumsum(1) - 1
        return order.reshape(problem.x.shape), free.sum(1).clamp_min(1)
