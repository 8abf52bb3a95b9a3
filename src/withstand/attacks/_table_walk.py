"""From a row that fools the model back towards x, feature by feature, by labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._errors import ThreatError
from ..threat import Access
from ..threat.tabular import Capability
from ._ball import length
from ._contract import Attack, Query, Seen
from ._noise import uniform
from ._problem import Problem
from ._repair import repaired, units
from ._rows import Donors, Rows

_START, _REVERT, _SHRINK, _DONE = range(4)
AIMS = ("features", "cost")
# Shares of the changed features that are taken back at once, beside one at a time.
_SHARES = (0.875, 0.75, 0.5, 0.25)
# How often each row to begin with is copied: all of it, half of it, a quarter.
_COPIES = 3
# A change is settled where what is known in vain is this near, as a share of the change.
_NEAR = 1e-3
# By how much the size of a change counts beside its cost.
_BESIDE = 1e-6


class _State(NamedTuple):
    begin: Tensor  # rows (B, tries, F) to begin with,
    there: Tensor  # and which there are
    toward: Tensor  # the end (B, F) of each range to which the wanted classes lie
    held: Tensor  # the best row (B, F) so far that fools the model
    strain: Tensor  # of it: how far it is beyond what is allowed, 1 where it is not
    effort: Tensor
    vain: Tensor  # values (B, F) that a feature was brought back to in vain
    stuck: Tensor  # units (B, F) that could not be given up,
    eased: Tensor  # and those that could alone, when last tried
    phase: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class TableWalk(Attack):
    """The least change that fools, in features or in cost, from rows that do (labels alone).

    It begins with `rows`: those of others (`Donors`), of which all or some features are copied, or
    `Examples` of another attack; without them, with random rows. Where none of those fools, it goes
    on for half of the rounds with rows anywhere in the box, half of whose features lie at the end
    to which the others' classes point. What fools the model is brought back until it is within the
    limits, and then until no feature can be given up and no change be made smaller. A choice counts
    as one feature. Up to `block` forwards a round.
    aim: the fewest features and then the least cost, or the least cost. The order of the steps is
    ours; the idea of going back along a row that fools is that of decision-based attacks (Brendel
    et al. 2018).
    """

    rows: Rows | None = None
    aim: str = "features"
    rounds: int = 60
    block: int = 24
    tries: int = 8
    restarts: int = 1
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("linf", "l2", "l1", "l0")
    tables: ClassVar = True
    refines: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.aim not in AIMS:
            raise ThreatError(f"aim is {self.aim!r}; it is one of {', '.join(AIMS)}")
        super().__post_init__()

    @property
    def lanes(self) -> int:
        """Restarts, each from other rows."""
        return self.restarts

    def effort(self, x: Tensor, points: Tensor, norm: str, capability: Capability | None) -> Tensor:
        """Features and then cost, or cost and then features (B,); without a table the length."""
        if capability is None:
            return length(points - x, norm).double()
        before, after = (one.cpu().numpy().astype(np.float64) for one in (x, points))
        changed, cost = capability.changed(before, after), capability.cost(before, after)
        apart = np.abs(after - before)
        size = np.divide(apart, np.abs(before) + apart, out=np.zeros_like(apart), where=apart > 0)
        # Column by column, since sums over a row may round by how many rows there are.
        total = sum(size.T, np.zeros(len(size)))
        cost = cost + (_BESIDE if priced(capability) else 1.0) * total
        found = changed + cost / (1 + cost) if self.aim == "features" else cost
        return torch.from_numpy(found).to(x.device)

    def init(self, problem: Problem) -> _State:
        x, zero = problem.x.flatten(1), torch.zeros_like(problem.lane)
        if self.rows is None:
            begin = self._anywhere(problem)
            there = torch.ones_like(begin[..., 0], dtype=torch.bool)
        else:
            begin, there = self.rows.begin(problem, self.tries)
            if isinstance(self.rows, Donors):
                # For a sample like all the others there is at least chance.
                alone = ~there.any(1)
                begin = torch.where(alone[:, None, None], self._anywhere(problem), begin)
                there = there | alone[:, None]
        toward = self.rows.toward(problem) if isinstance(self.rows, Donors) else x
        no = torch.zeros_like(x, dtype=torch.bool)
        far = torch.full(zero.shape, torch.inf, dtype=torch.float64, device=x.device)
        return _State(
            begin=begin,
            there=there,
            toward=toward,
            held=x,
            strain=far,
            effort=far,
            vain=x,
            stuck=no,
            eased=no,
            phase=zero + _START,
            step=zero,
        )

    def query(self, problem: Problem, state: _State) -> Query:
        rows, wanted = self._candidates(problem, state)
        rows, feasible = repaired(problem, rows, limited=False)
        live = wanted & feasible & (rows != state.held[:, None]).any(2)
        unstarted = (state.phase == _START) & (
            ~state.there.any(1) | (self._copied(state.step) & (2 * state.step >= self.rounds))
        )
        going = (state.phase != _DONE) & ~unstarted & (state.step < self.rounds)
        # One point stands in where none is possible, so that the row goes on to its next phase.
        idle = ~live.any(1)
        rows[:, 0] = torch.where(idle[:, None], state.held, rows[:, 0])
        live[:, 0] |= idle
        shape = (*rows.shape[:2], *problem.x.shape[1:])
        return Query(rows.reshape(shape), live & going[:, None], None, unstarted)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        rows, hit = seen.points.flatten(2), seen.hit
        strain, effort = self._judged(problem, rows, hit)
        least = strain.amin(1)
        effort = effort.masked_fill(strain > least[:, None], torch.inf)
        best, slot = effort.min(1)
        better = (least < state.strain) | ((least == state.strain) & (best < state.effort))
        chosen = rows.gather(1, slot[:, None, None].expand(-1, 1, rows.shape[2]))[:, 0]
        held = torch.where(better[:, None], chosen, state.held)

        reverting, shrinking = state.phase == _REVERT, state.phase == _SHRINK
        tried, eased = self._lone(problem, state, hit)
        stuck = (state.stuck | tried) & ~better[:, None]
        failed = self._failed(problem, state, hit, held)
        moved = self._moved(problem, held)
        through = (stuck | ~moved).all(1) | (moved.sum(1) < 2)
        phase = torch.where((state.phase == _START) & better, _REVERT, state.phase)
        phase = torch.where((phase == _REVERT) & through, _SHRINK, phase)
        vain = torch.where(shrinking[:, None], failed, problem.x.flatten(1))
        closed = ~self._open(problem, held, vain).any(1)
        return _State(
            begin=state.begin,
            there=state.there,
            toward=state.toward,
            held=held,
            strain=torch.where(better, least, state.strain),
            effort=torch.where(better, best, state.effort),
            vain=vain,
            stuck=stuck,
            eased=torch.where(reverting[:, None], eased, state.eased),
            phase=torch.where((phase == _SHRINK) & closed, _DONE, phase),
            step=state.step + 1,
        )

    def _judged(self, problem: Problem, rows: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
        """How far hits (B, M) are beyond the limits, and their effort; infinite for the others."""
        strain = torch.full(hit.shape, torch.inf, dtype=torch.float64, device=rows.device)
        effort = strain.clone()
        row, slot = hit.nonzero(as_tuple=True)
        x, found, asked = problem.x.flatten(1)[row], rows[row, slot], problem.capability
        effort[row, slot] = self.effort(x, found, problem.norm, asked).to(effort.dtype)
        ratio = length(found - x, problem.norm).double() / problem.eps[row].clamp_min(1e-12)
        ratio = ratio.clamp_min(1)
        if asked is not None:
            before, after = (one.cpu().numpy().astype(np.float64) for one in (x, found))
            for most, told in (
                (asked.most_changed, asked.changed(before, after)),
                (asked.most_cost, asked.cost(before, after)),
            ):
                if most is not None:
                    share = torch.from_numpy(told / max(most, 1e-12)).to(ratio)
                    ratio = torch.maximum(ratio, share)
        strain[row, slot] = ratio
        return strain, effort

    def _candidates(self, problem: Problem, state: _State) -> tuple[Tensor, Tensor]:
        """Rows (B, M, F), not repaired yet, and which are wanted."""
        rows = state.held[:, None].repeat(1, self.block, 1)
        wanted = torch.zeros_like(rows[..., 0], dtype=torch.bool)
        phases = ((_START, self._begun), (_REVERT, self._reverted), (_SHRINK, self._shrunk))
        for phase, made in phases:
            here = state.phase == phase
            if bool(here.any()):
                others, asked = made(problem, state)
                rows = torch.where(here[:, None, None], others, rows)
                wanted = torch.where(here[:, None], asked, wanted)
        return rows, wanted

    def _begun(self, problem: Problem, state: _State) -> tuple[Tensor, Tensor]:
        """All features of each row to begin with, then random halves of them, then quarters; after
        that rows anywhere, half of their features at the end to which the others point."""
        x = problem.x.flatten(1)
        (b, f), m = x.shape, self.block
        number = state.step[:, None] * m + torch.arange(m, device=x.device)
        place = number % self.tries
        share = 0.5 ** (number // self.tries).double()
        taken = uniform(problem, 1, state.step, m * f).reshape(b, m, f) < share[..., None]
        rows = state.begin.gather(1, place[..., None].expand(b, m, f))
        copied = torch.where(self._spread(problem, taken), rows, x[:, None])
        copies = number < _COPIES * self.tries
        _, lower, upper = (one.flatten(1)[:, None] for one in _box(problem))
        side, drawn = uniform(problem, 4, state.step, 2 * m * f).reshape(b, 2, m, f).unbind(1)
        other = torch.where(side < 0.5, lower + drawn * (upper - lower), state.toward[:, None])
        return torch.where(copies[..., None], copied, other), ~copies | state.there.gather(1, place)

    def _copied(self, step: Tensor) -> Tensor:
        """Whether all copies have been asked about."""
        return step * self.block >= _COPIES * self.tries

    def _reverted(self, problem: Problem, state: _State) -> tuple[Tensor, Tensor]:
        """Without several of the changed features, and without one of them."""
        rank, several = self._order(problem, state)
        moved = self._moved(problem, state.held)
        count = moved.sum(1)
        singles = torch.arange(self.block - several.shape[1], device=rank.device)
        back = torch.cat((rank[:, None] < several[..., None], rank[:, None] == singles[:, None]), 1)
        back &= moved[:, None]
        fresh = (back[:, several.shape[1] :] & ~state.stuck[:, None]).any(2)
        wanted = torch.cat(((several > 1) & (several < count[:, None]), fresh), 1)
        rows = torch.where(
            self._spread(problem, back), problem.x.flatten(1)[:, None], state.held[:, None]
        )
        return rows, wanted & (count > 1)[:, None]

    def _order(self, problem: Problem, state: _State) -> tuple[Tensor, Tensor]:
        """The order (B, F) in which to give up features, and how many of them at once (B, n)."""
        moved = self._moved(problem, state.held)
        noise = uniform(problem, 2, state.step, moved.shape[1])
        later = 2.0 * ~state.eased + 4.0 * state.stuck + 8.0 * ~moved
        rank = (noise + later).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        count = moved.sum(1, keepdim=True)
        shares = torch.tensor(_SHARES[: max(0, self.block // 2 - 1)], device=noise.device)
        sizes = (count * shares).ceil().long()
        return rank, torch.cat(((state.eased & moved).sum(1, keepdim=True), sizes), 1)

    def _lone(self, problem: Problem, state: _State, hit: Tensor) -> tuple[Tensor, Tensor]:
        """Which units (B, F) were given up alone, and for which that still fooled."""
        rank, several = self._order(problem, state)
        first = several.shape[1]
        here = self._moved(problem, state.held) & (state.phase == _REVERT)[:, None]
        tried = here & (rank < self.block - first)
        slot = (rank + first).clamp_max(self.block - 1)
        return tried, tried & hit.gather(1, slot)

    def _shrunk(self, problem: Problem, state: _State) -> tuple[Tensor, Tensor]:
        """With one change made smaller."""
        place, share, wanted = self._steps(problem, state)
        held, vain = (one.gather(1, place).double() for one in (state.held, state.vain))
        rows = state.held[:, None].repeat(1, self.block, 1)
        value = (vain + share * (held - vain)).to(rows.dtype)
        return rows.scatter(2, place[..., None], value[..., None]), wanted

    def _steps(self, problem: Problem, state: _State) -> tuple[Tensor, Tensor, Tensor]:
        """Of each slot (B, M): its feature, the share of the way there, and whether it is used."""
        open_ = self._open(problem, state.held, state.vain)
        count = open_.sum(1, keepdim=True)
        each = (self.block // count.clamp_min(1)).clamp_min(1)
        slots = torch.arange(self.block, device=count.device)
        number = slots // each
        order = (~open_).to(torch.uint8).argsort(dim=1, stable=True)
        place = order.gather(1, number.clamp_max(open_.shape[1] - 1))
        return place, (slots % each + 1) / (each + 1).double(), number < count

    def _failed(self, problem: Problem, state: _State, hit: Tensor, held: Tensor) -> Tensor:
        """The values (B, F) now known to be in vain, on this side of what is held."""
        place, share, wanted = self._steps(problem, state)
        before, vain = (one.gather(1, place).double() for one in (state.held, state.vain))
        value, now = vain + share * (before - vain), held.gather(1, place)
        share = share * (wanted & ~hit & ((value - now) * (vain - now) > 0))
        most = torch.zeros_like(held, dtype=share.dtype).scatter_reduce(1, place, share, "amax")
        return (state.vain + most * (state.held - state.vain)).to(held.dtype)

    def _open(self, problem: Problem, held: Tensor, vain: Tensor) -> Tensor:
        """The changed numbers (B, F) that may still be brought nearer."""
        x, grid = problem.x.flatten(1), self._grid(problem)
        gap = (held - vain).abs()
        return (held != x) & (grid >= 0) & (gap > grid) & (gap > _NEAR * (held - x).abs())

    def _grid(self, problem: Problem) -> Tensor:
        """What each feature (F,) is a multiple of: 0 for any value, -1 for what is no number."""
        asked, x = problem.capability, problem.x.flatten(1)
        if asked is None:
            return torch.zeros_like(x[0])
        own = units(asked) == torch.arange(x.shape[1])
        grouped = {asked.index[name] for group in asked.choices for name in group.columns}
        steps = [
            -1.0 if one.values is not None or place in grouped else one.step or float(one.integer)
            for place, one in enumerate(asked.features)
        ]
        return torch.where(own, torch.tensor(steps), -1.0).to(x)

    def _moved(self, problem: Problem, held: Tensor) -> Tensor:
        """Which units (B, F) have changed."""
        moved = held != problem.x.flatten(1)
        if problem.capability is None:
            return moved
        unit = units(problem.capability).to(held.device)
        wide = torch.zeros(len(held), held.shape[1] + 1, device=held.device)
        return wide.index_add(1, unit, moved.to(wide.dtype))[:, :-1] > 0

    def _spread(self, problem: Problem, chosen: Tensor) -> Tensor:
        """Which features (B, M, F) the chosen units are made of."""
        if problem.capability is None:
            return chosen
        unit = units(problem.capability).to(chosen.device)
        return torch.nn.functional.pad(chosen, (0, 1))[..., unit]

    def _anywhere(self, problem: Problem) -> Tensor:
        """Random rows (B, tries, F) of the box, corners and others in turn."""
        x, lower, upper = (one.flatten(1)[:, None] for one in _box(problem))
        drawn = uniform(problem, 3, 0, self.tries * x.shape[2]).reshape(len(x), self.tries, -1)
        corner = (torch.arange(self.tries, device=x.device) % 2 == 0)[:, None]
        rows = lower + torch.where(corner, drawn.round(), drawn) * (upper - lower)
        return torch.where(upper > lower, rows, x)


def priced(capability: Capability) -> bool:
    """Whether any change costs anything."""
    told = (one.cost or one.fixed for one in capability.features)
    return any(told) or any(group.cost for group in capability.choices)


def _box(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """x, and the ends of its box; where it has none, as far from x as x is from 0, or 1."""
    x, lower, upper = problem.x, problem.lower, problem.upper
    room = x.abs().clamp_min(1)
    return (
        x,
        torch.where(lower.isfinite(), lower, x - room),
        torch.where(upper.isfinite(), upper, x + room),
    )
