"""SimBA: one direction of an orthonormal basis after the other, from scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import project
from ._contract import Attack, Query, Seen
from ._noise import uniform
from ._problem import Problem
from ._square import _picture


class _State(NamedTuple):
    walked: Tensor  # the steps that helped, before they are projected
    best_margin: Tensor
    order: Tensor  # the directions (B, features) of this pass
    turn: Tensor  # how many of them were tried
    passed: Tensor
    back: Tensor  # whether it is tried backwards
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class SimBA(Attack):
    """SimBA (Guo et al. 2019, algorithm 1): steps along an orthonormal basis, L2 and Linf.

    Each direction is tried forward, and if that does not help, backward. basis: "pixel", features
    in random order, or "dct", cosine waves over each channel (or row of features), the slow ones
    first, up to the share `band` of the frequencies of each axis in the first pass, twice that in
    the second. A pass draws no direction twice.
    stride: a step's length in shares of the radius, for a wave in Linf of the length of a change of
    all features by the radius; if not given, 1 for pixels in Linf, else 0.2. 1 forward a step.
    """

    queries: int = 5000
    basis: Literal["pixel", "dct"] = "dct"
    band: float = 0.5
    stride: float | None = None
    needs: ClassVar[Access] = "scores"
    norms: ClassVar = ("linf", "l2")

    def init(self, problem: Problem) -> _State:
        zero, worst = torch.zeros_like(problem.lane), torch.full_like(problem.eps, torch.inf)
        order = self._order(problem, zero)
        return _State(problem.x, worst, order, zero, zero, zero > 0, zero)

    def query(self, problem: Problem, state: _State) -> Query:
        points = project(problem, self._moved(problem, state))
        return Query(points, state.step < self.queries)

    def _moved(self, problem: Problem, state: _State) -> Tensor:
        # A feature does most at a face of the ball, and it has no other turn in this pass.
        default = 1.0 if problem.norm == "linf" and self.basis == "pixel" else 0.2
        stride = default if self.stride is None else self.stride
        size = stride * problem.eps * torch.where(state.back, -1.0, 1.0)
        # The first query only measures x.
        size = torch.where(state.step == 0, 0.0, size)
        number = state.order.gather(1, state.turn[:, None])[:, 0]
        return state.walked + problem.column(size) * self._direction(problem, number)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.scores is not None
        margin = problem.goal.margin(seen.scores, problem.y)
        better = margin < state.best_margin
        tried = (better | state.back) & (state.step > 0)
        turn = state.turn + tried
        over = turn >= self._directions(problem, state.passed)
        passed = state.passed + over
        order = state.order
        if bool(over.any()):
            order = torch.where(over[:, None], self._order(problem, passed), order)
        return _State(
            walked=torch.where(problem.column(better), self._moved(problem, state), state.walked),
            best_margin=torch.where(better, margin, state.best_margin),
            order=order,
            turn=torch.where(over, 0, turn),
            passed=passed,
            back=~tried & (state.step > 0),
            step=state.step + 1,
        )

    def _bands(self, problem: Problem, number: Tensor) -> tuple[Tensor, Tensor]:
        """How many frequencies (B,) down and across pass `number` (B,) uses."""
        shape = _picture(problem.x)
        shares = [min(1.0, self.band * n) for n in range(1, math.ceil(1 / self.band) + 1)]
        number = number.clamp_max(len(shares) - 1)
        down, across = (
            torch.tensor([max(1, math.ceil(share * n)) for share in shares], device=number.device)
            for n in shape[2:]
        )
        return down[number], across[number]

    def _directions(self, problem: Problem, number: Tensor) -> Tensor:
        """How many directions (B,) pass `number` (B,) has."""
        if self.basis == "pixel":
            return (problem.upper > problem.lower).flatten(1).sum(1).clamp_min(1)
        down, across = self._bands(problem, number)
        return _picture(problem.x)[1] * down * across

    def _order(self, problem: Problem, number: Tensor) -> Tensor:
        """Directions (B, features) in the order of pass `number` (B,), those without use last."""
        key = uniform(problem, 1, number, problem.x[0].numel())
        if self.basis == "pixel":
            frozen = (problem.upper <= problem.lower).flatten(1)
            return (key + frozen).argsort(dim=1, stable=True)
        _, c, h, w = _picture(problem.x)
        down, across = (n[:, None, None, None] for n in self._bands(problem, number))
        i, j = torch.arange(h, device=key.device)[:, None], torch.arange(w, device=key.device)
        # In bands of the larger of the two frequencies, and at random within a band.
        band = torch.maximum(i / h, j / w) * max(h, w)
        band = torch.where((i < down) & (j < across), band.floor(), h + w).expand(-1, c, h, w)
        return (key + band.flatten(1)).argsort(dim=1, stable=True)

    def _direction(self, problem: Problem, number: Tensor) -> Tensor:
        """The directions (B, ...) of these numbers (B,): of length 1, in Linf of mean square 1."""
        x = problem.x
        if self.basis == "pixel":
            place = torch.arange(x[0].numel(), device=x.device)
            return (place == number[:, None]).to(x.dtype).reshape(x.shape)
        _, c, h, w = _picture(x)
        wave = _wave(number % (h * w) // w, h)[:, :, None] * _wave(number % w, w)[:, None]
        channel = torch.arange(c, device=x.device) == (number // (h * w))[:, None]
        wave = torch.where(channel[:, :, None, None], wave[:, None], 0.0)
        if problem.norm == "linf":
            wave = wave * math.sqrt(h * w)
        return wave.reshape(x.shape)


def _wave(frequency: Tensor, size: int) -> Tensor:
    """The cosines (B, size) of that frequency (B,), of length 1."""
    # Rows of a table, because cosines of a batch may round by their place in it.
    place = torch.arange(size, dtype=torch.float64, device=frequency.device)
    table = torch.cos((2 * place + 1) * place[:, None] * (math.pi / (2 * size)))
    table *= math.sqrt(2 / size)
    table[0] /= math.sqrt(2)
    return table[frequency].float()
