"""A search over rows of a table, by scores alone, that never asks about an impossible row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Query, Seen
from ._cuts import Cuts
from ._noise import GOLDEN, mix, uniform, uniform_of
from ._problem import Problem
from ._repair import movable, repaired
from ._rows import Donors
from ._tables import TableAttack, widths

# A feature that changes goes to an end of its range, anywhere in it, nearby, or else back.
_END, _ANYWHERE, _NEARBY = 0.3, 0.6, 0.93
_NEAR = 0.2
# How often it goes beside a cut of the trees instead, or to the value of another row.
_CUT, _DONOR = 0.5, 0.15
_DONORS = 8

# Rows, children and features (n,) of some places in (B, children, F).
_Places = tuple[Tensor, ...]


class _State(NamedTuple):
    kept: Tensor  # the best rows (B, kept, F) so far
    margin: Tensor  # of each, (B, kept)
    others: Tensor  # rows (B, n, F) of others,
    there: Tensor  # and which there are
    free: Tensor  # the features (B, F) that can change, and with cuts change the answer
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class TableSearch(TableAttack):
    """A batched evolutionary search under constraints, for tables with a Capability.

    Each generation crosses the best rows so far and changes up to `most_moved` features of each
    child: to an end of its range, anywhere in it, a little up or down, or back to the clean value;
    beside a cut of the trees, where `cuts` tells them; to the value of a row of another class,
    where `donors` are given, which the first generation copies whole and by halves. Children are
    repaired (see `Repair`), and only new ones that the attacker can make are asked about. The
    setting is that of MOEVA (Simonetto et al. 2022); here each row has its own population, all of
    them in one call of the model, and one objective, since repairs keep the constraints. At most
    `children` forwards a generation.
    """

    generations: int = 100
    children: int = 24
    kept: int = 12
    most_moved: int = 6
    cuts: Cuts | None = None
    donors: Donors | None = None
    needs: ClassVar[Access] = "scores"

    def init(self, problem: Problem) -> _State:
        x = problem.x.flatten(1)
        kept = x[:, None].expand(-1, self.kept, -1).clone()
        margin = torch.full(kept.shape[:2], torch.inf, device=kept.device)
        if self.donors is None:
            others = x[:, None, :].clone()
            there = torch.zeros_like(others[..., 0], dtype=torch.bool)
        else:
            others, there = self.donors.begin(problem, _DONORS)
        free = movable(problem)
        if self.cuts is not None:
            free &= self.cuts.between(problem.lower.flatten(1), problem.upper.flatten(1))
        return _State(kept, margin, others, there, free, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        rows, live = repaired(problem, self._children(problem, state))
        # Most features of a table are whole numbers: children are often like their parents.
        live &= ~(_digest(rows)[:, :, None] == _digest(state.kept)[:, None]).any(2)
        # The best one so far stands in: a generation of misfits does not end the search.
        idle = ~live.any(1)
        rows[:, 0] = torch.where(idle[:, None], state.kept[:, 0], rows[:, 0])
        live[:, 0] |= idle
        going = (state.step < self.generations)[:, None]
        return Query(rows.reshape(*rows.shape[:2], *problem.x.shape[1:]), live & going)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.scores is not None
        b, m = seen.points.shape[:2]
        labels = problem.y.repeat_interleave(m, 0)
        margin = problem.goal.margin(seen.scores.flatten(0, 1), labels).reshape(b, m)
        # Scores of points that were not asked about are all 0.
        asked = (seen.scores != 0).any(2)
        margin = torch.where(margin.isnan() | ~asked, torch.inf, margin)
        all_margins = torch.cat((state.margin, margin), 1)
        best = all_margins.argsort(dim=1, stable=True)[:, : self.kept]
        rows = torch.cat((state.kept, seen.points.flatten(2)), 1)
        kept = rows.gather(1, best[..., None].expand(-1, -1, rows.shape[2]))
        return state._replace(kept=kept, margin=all_margins.gather(1, best), step=state.step + 1)

    def _children(self, problem: Problem, state: _State) -> Tensor:
        """Crossed and changed rows (B, children, F), not repaired yet."""
        b, _, f = state.kept.shape
        shape = (b, self.children, f)

        def drawn(tag: int, each: int) -> Tensor:
            return uniform(problem, tag, state.step, self.children * each).reshape(b, -1, each)

        parents = (drawn(1, 2) * self.kept).long().clamp_max(self.kept - 1)
        # The best one takes part in every fourth child; more often, all become like it too soon.
        parents[:, ::4, 0] = 0
        mother, father = (state.kept.gather(1, parents[..., n, None].expand(shape)) for n in (0, 1))
        # One number says of whom a feature comes, whether it changes, and how.
        told = drawn(2, f).mul_(2)
        child = torch.where(told < 1, mother, father)
        free = state.free[:, None]
        share = (1 + drawn(3, 1) * (self.most_moved - 1)) / free.sum(2, keepdim=True).clamp_min(1)
        chosen = told.frac_() / share
        where = ((chosen < 1) & free).nonzero(as_tuple=True)
        child[where] = self._changed(problem, state, child, where, chosen[where])
        if self.donors is None or not (first := state.step == 0).any():
            return child
        # The first generation copies the other rows, in all features and then in half of them.
        whole = torch.arange(self.children, device=child.device)[:, None] < state.there.shape[1]
        where = ((whole | (drawn(5, f) < 0.5)) & first[:, None, None]).nonzero(as_tuple=True)
        child[where] = self._given(state, child, where)
        return child

    def _changed(
        self, problem: Problem, state: _State, child: Tensor, where: _Places, kind: Tensor
    ) -> Tensor:
        """Other values (n,) of the features that change, in a way that kind, from 0 to 1, says."""
        row, number, feature = where
        lower, upper = problem.lower.flatten(1), problem.upper.flatten(1)
        x, low, high, width = (
            one[row, feature] for one in (problem.x.flatten(1), lower, upper, widths(problem))
        )
        place = uniform_of(problem, 4, state.step, row, number * child.shape[2] + feature)
        first = _DONOR if self.donors is not None else 0.0
        second = first + (_CUT if self.cuts is not None else 0.0)
        rest = (kind - second) / (1 - second)
        near = child[where] + _NEAR * (place - 0.5) * width
        new = torch.where(rest < _NEARBY, near, x)
        new = torch.where(rest < _ANYWHERE, low + place * (high - low), new)
        new = torch.where(rest < _END, torch.where(place < 0.5, low, high), new)
        if self.cuts is not None:
            beside = self.cuts.beside(lower, upper, row, feature, place)
            new = torch.where(kind < second, beside, new)
        if self.donors is not None:
            new = torch.where(kind < first, self._given(state, child, where), new)
        return torch.where(new.isfinite(), new, near)

    def _given(self, state: _State, child: Tensor, where: _Places) -> Tensor:
        """The values (n,) of other rows, by turns; the child's where there are none."""
        row, number, feature = where
        turn = (number + state.step[row]) % state.there.shape[1]
        return torch.where(state.there[row, turn], state.others[row, turn, feature], child[where])


def _digest(rows: Tensor) -> Tensor:
    """A number (B, M) for each row (B, M, F), the same only for equal ones but by a rare chance."""
    factors = mix(torch.arange(1, rows.shape[2] + 1, device=rows.device) * GOLDEN) | 1
    # A zero is a zero, whatever its sign.
    return (rows + 0.0).view(torch.int32).long().mul_(factors).sum(2)
