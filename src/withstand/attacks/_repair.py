"""Rows of a table brought back to what an attacker can make of the row before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..threat.tabular import (
    Both,
    Call,
    Capability,
    Column,
    Compare,
    Either,
    Truth,
    Value,
    affine,
    column_of,
    excess,
    names,
    value,
)
from ._ball import project
from ._problem import Problem

Array = NDArray[Any]

_ROUNDS = 3
# Of what is missing to an inequality, so that rounding does not leave a little of it missing.
_FURTHER = 1 + 1e-6
# Of the budget, so that rounding a change to single precision does not exceed it.
_WITHIN = 1 - 1e-6


class _Half(NamedTuple):
    """Of a linear rule, whose sum is at most 0, or 0 where it is even: columns and factors (P,)."""

    places: Array
    factors: Array
    constant: float
    even: bool


class _Given(NamedTuple):
    """A column that an equation gives."""

    place: int
    tree: Value


class Repair:
    """Repairs candidates (B, M, F) of rows x (B, F); what it cannot mend stays broken.

    In turn: ranges, grids, categories and choices; relations, by moving the features that they
    speak of; what is derived; and at last the limits on how many features change and at what cost,
    by taking back the smallest changes, and of the one that costs too much as much as is needed.
    """

    def __init__(self, capability: Capability) -> None:
        self.capability, self._index = capability, capability.index
        features = capability.features
        self._grid = np.array([one.step or float(one.integer) for one in features])
        self._sets = [(place, np.array(one.values), one.allow)
                      for place, one in enumerate(features) if one.values is not None]  # fmt: skip
        self._choices = [[self._index[name] for name in group.columns]
                         for group in capability.choices]  # fmt: skip
        made = [self._index[one.name] for one in capability.derived]
        self._own = np.ones(len(features), bool)
        self._own[[*made, *(place for group in self._choices for place in group)]] = False
        self._made = np.zeros(len(features), bool)
        self._made[made] = True
        self._costs = np.array([[one.cost, one.fixed] for one in features]).T
        self._mends = [list(self._mend(one.tree)) for one in capability.relations]

    def __call__(
        self, x: Array, points: Array, lower: Array, upper: Array, worth: Array | None = None
    ) -> Array:
        """Repaired candidates (B, M, F), float32; lower, upper (B, F): what x (B, F) can become.

        worth (B, M, F): of which changes the least are taken back, their size if it is not given.
        """
        x, lower, upper = (_columns(one[:, None]) for one in (x, lower, upper))
        found = self._snapped(x, _columns(points), lower, upper)
        told = tuple(np.broadcast_to(one, found.shape) for one in (x, lower, upper))
        wrong = self._related(found, *told[1:])
        if wrong.any():
            some, before, *ends = (_of(one, wrong) for one in (found, *told))
            for _ in range(_ROUNDS - 1):
                some = self._snapped(before, some, *ends)
                if not self._related(some, *ends).any():
                    break
            found[wrong] = self._snapped(before, some, *ends)
        found = self._spared(x, self._single(found), lower, upper, worth)
        return np.ascontiguousarray(found, np.float32)

    def feasible(self, x: Array, points: Array) -> NDArray[np.bool_]:
        """Which candidates (B, M, F) of rows x (B, F) the attacker can make."""
        flat = _columns(points.reshape(-1, points.shape[-1]))
        before = np.repeat(_columns(x).T, points.shape[1], 1).T
        return self.capability.contains(before, flat).reshape(points.shape[:2])

    def _snapped(self, x: Array, points: Array, lower: Array, upper: Array) -> Array:
        """In their ranges, on their grids, of their categories, and one choice of each group."""
        found = np.clip(points, lower, upper)
        places = np.flatnonzero(self._grid)
        if len(places):
            step, low, high = self._grid[places], lower[..., places], upper[..., places]
            least, most = np.floor(low / step), np.ceil(high / step)
            # In single precision a multiple may lie on the other side of an end.
            least += (least * step).astype(np.float32) < low
            most -= (most * step).astype(np.float32) > high
            count = np.clip(np.rint(found[..., places] / step), least, most) * step
            found[..., places] = np.where(least > most, x[..., places], count)
        for place, values, allow in self._sets:
            found[..., place] = _nearest(
                x[..., place],
                found[..., place],
                values,
                allow,
                lower[..., place],
                upper[..., place],
            )
        for group in self._choices:
            weight = np.where(upper[..., group] < 1, -np.inf, found[..., group])
            weight = np.where(lower[..., group] >= 1, np.inf, weight)
            found[..., group] = np.arange(len(group)) == weight.argmax(-1)[..., None]
        return found

    def _mend(self, tree: Truth) -> Iterator[tuple[Truth, _Half | _Given]]:
        """The ways to mend each part of a rule; of alternatives, that which lacks the least."""
        if isinstance(tree, Both | Either):
            for part in tree.parts:
                yield from self._mend(part)
        elif isinstance(tree, Compare) and tree.op != "!=":
            form = affine(Call("subtract", (tree.left, tree.right)))
            if form is not None:
                places = np.array([self._index[name] for name in form[0]], int)
                factors = np.array(list(form[0].values()))
                yield tree, _Half(places, factors, form[1], tree.op == "==")
            elif tree.op == "==":
                for one, other in ((tree.left, tree.right), (tree.right, tree.left)):
                    if isinstance(one, Column) and one.name not in set(names(other)):
                        yield tree, _Given(self._index[one.name], other)

    def _related(self, found: Array, lower: Array, upper: Array) -> NDArray[np.bool_]:
        """Move what breaks relations, in place; which rows (...) were broken."""
        if self._made.any():
            found[...] = self.capability.derive(found)
        broken = np.zeros(found.shape[:-1], bool)
        for relation, mends in zip(self.capability.relations, self._mends, strict=True):
            wrong = ~relation.holds(found, self._index)
            if not mends or not wrong.any():
                continue
            broken |= wrong
            some = _of(found, wrong)
            lacks = np.stack([
                np.broadcast_to(excess(part, column_of(some, self._index)), some.shape[:1])
                for part, _ in mends
            ])  # fmt: skip
            either = isinstance(relation.tree, Either)
            chosen = lacks.argmin(0)
            for number, (_, way) in enumerate(mends):
                rows = wrong.copy()
                rows[wrong] = (lacks[number] > 0) & ((chosen == number) | (not either))
                if rows.any():
                    self._moved(found, rows, way, lower, upper)
        return broken

    def _moved(
        self, found: Array, rows: Array, way: _Half | _Given, lower: Array, upper: Array
    ) -> None:
        if isinstance(way, _Given):
            points, place = _of(found, rows), way.place
            low, high = (end[..., place][rows] for end in (lower, upper))
            wanted = np.asarray(value(way.tree, column_of(points, self._index)))
            found[..., place][rows] = np.clip(wanted, low, high)
            return
        which = (*(one[:, None] for one in rows.nonzero()), way.places)
        # Row by row, so that how a sum is rounded does not depend on how many rows there are.
        points, low, high = (np.ascontiguousarray(one[which]) for one in (found, lower, upper))
        movable = (way.factors != 0) & ~self._made[way.places]
        factors = way.factors * movable
        # Not by matmul, whose rounding does.
        lack = (points * way.factors).sum(1) + way.constant
        up = np.where(lack[:, None] > 0, -1.0, 1.0) * np.sign(factors)
        reach = np.where(up > 0, high - points, points - low)
        room = np.where(movable, reach, 0.0) * np.abs(factors)
        room = np.where(np.isfinite(room), room, np.abs(lack)[:, None])
        share = np.abs(lack) * (1.0 if way.even else _FURTHER) / np.maximum(room.sum(1), 1e-300)
        step = room * np.minimum(share, 1.0)[:, None]
        points += up * np.divide(step, np.abs(factors), where=movable, out=np.zeros_like(step))
        grid = self._grid[way.places]
        if not way.even and (stepped := movable & (grid > 0)).any():
            count = points[:, stepped] / grid[stepped]
            outward = np.where(up[:, stepped] > 0, np.ceil(count), np.floor(count))
            points[:, stepped] = outward * grid[stepped]
        found[which] = points

    def _spared(
        self, x: Array, found: Array, lower: Array, upper: Array, worth: Array | None
    ) -> Array:
        """With the changes of least worth taken back until their number and cost are allowed."""
        most, budget = self.capability.most_changed, self.capability.most_cost
        if most is None and budget is None:
            return found
        if worth is None:
            width = np.maximum(upper - lower, 1e-12)
            worth = np.where(np.isfinite(width), np.abs(found - x) / width, np.abs(found - x))
        moved = found != x
        worth = np.where(moved, worth, -np.inf)
        each, once = self._costs[0] * np.abs(found - x), self._costs[1] * moved
        units = [(worth[..., n], each[..., n], once[..., n], [n])
                 for n in np.flatnonzero(self._own).tolist()]  # fmt: skip
        for group, told in zip(self._choices, self.capability.choices, strict=True):
            one = moved[..., group].any(-1)
            whole = told.cost * one + each[..., group].sum(-1) + once[..., group].sum(-1)
            units.append((worth[..., group].max(-1), 0.0 * whole, whole, group))
        worths, changing, fixed = (np.stack([unit[n] for unit in units], -1) for n in range(3))
        order = np.argsort(-worths, axis=-1, kind="stable")
        changing, fixed = (np.take_along_axis(one, order, -1) for one in (changing, fixed))
        share = np.ones(order.shape)
        if most is not None:
            share *= np.arange(order.shape[-1]) < most
        if budget is not None:
            spent = (changing + fixed).cumsum(-1)
            left = budget * _WITHIN - (spent - changing - fixed) - fixed
            with np.errstate(all="ignore"):
                part = np.clip(left / changing, 0.0, 1.0)
            share *= np.where(spent <= budget, 1.0, np.where(changing > 0, part, 0.0))
        kept = np.empty_like(share)
        np.put_along_axis(kept, order, share, -1)
        for number, (_, _, _, places) in enumerate(units):
            part = kept[..., number, None]
            some = self._part(x[..., places], found[..., places], part, places)
            found[..., places] = np.where(part >= 1, found[..., places], some)
        return self._single(found)

    def _part(self, x: Array, found: Array, share: Array, places: list[int]) -> Array:
        """A share of a change, in whole steps; nothing of one between categories."""
        if any(place in places for place, *_ in self._sets) or len(places) > 1:
            return x
        change, grid = share * (found - x), self._grid[places]
        if grid[0]:
            change = np.trunc(change / grid + 1e-9 * np.sign(change)) * grid
            # A multiple, as single precision has it, and not x and a rounded step.
            return np.where(change == 0, x, np.rint((x + change) / grid) * grid)
        return np.asarray(x + change)

    def _single(self, found: Array) -> Array:
        """With what is derived, from the single precision in which rows are handed in."""
        return self.capability.derive(found.astype(np.float32))


def repaired(
    problem: Problem, points: Tensor, *, limited: bool = True, worth: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Candidates (B, M, F) of each row brought into its region, and which the attacker can make.

    In the box, and limited: in the ball of the threat's norm, each for itself, and within the
    limits on how many features change and at what cost; worth: as in `Repair`.
    """
    x, lower, upper = (one.flatten(1) for one in (problem.x, problem.lower, problem.upper))
    wide = problem.norm == "l0" and bool((problem.eps >= (upper > lower).sum(1)).all())
    if limited and not wide:
        shape = problem.x.shape
        each = [project(problem, one.reshape(shape)).flatten(1) for one in points.unbind(1)]
        points = torch.stack(each, 1)
    else:
        points = torch.clamp(points, lower[:, None], upper[:, None])
    if problem.capability is None:
        return points, torch.ones_like(points[..., 0], dtype=torch.bool)
    repair = _repair_of(problem.capability, limited)
    before, low, high = (one.cpu().numpy() for one in (x, lower, upper))
    told = None if worth is None else worth.cpu().numpy()
    found = repair(before, points.cpu().numpy(), low, high, told)
    feasible = repair.feasible(before, found)
    return torch.from_numpy(found).to(points.device), torch.from_numpy(feasible).to(points.device)


def units(capability: Capability) -> Tensor:
    """The change that each feature (F,) is part of, by its first place; F for what is derived."""
    found = torch.arange(len(capability.features))
    for group in capability.choices:
        places = [capability.index[name] for name in group.columns]
        found[places] = min(places)
    found[[capability.index[one.name] for one in capability.derived]] = len(found)
    return found


def movable(problem: Problem) -> Tensor:
    """Which features (B, F) have another value in their range."""
    lower, upper = (one.flatten(1).double() for one in (problem.lower, problem.upper))
    if problem.capability is None:
        return upper > lower
    told = [one.step or float(one.integer) or np.nan for one in problem.capability.features]
    step = torch.tensor(told, dtype=torch.float64, device=lower.device)
    least, most = (lower / step).floor(), (upper / step).ceil()
    # In single precision a multiple may lie on the other side of an end.
    least += (least * step).float() < lower
    most -= ((most * step).float() > upper).double()
    return (upper > lower) & ~(most <= least)


# A few capabilities are attacked at a time, and a repair takes longer to plan than to do.
_KNOWN: OrderedDict[tuple[int, bool], tuple[Capability, Repair]] = OrderedDict()
_MOST_KNOWN = 8


def _repair_of(capability: Capability, limited: bool) -> Repair:
    key = (id(capability), limited)
    if key not in _KNOWN or _KNOWN[key][0] is not capability:
        asked = capability if limited else replace(capability, most_changed=None, most_cost=None)
        _KNOWN[key] = (capability, Repair(asked))
        while len(_KNOWN) > _MOST_KNOWN:
            _KNOWN.popitem(last=False)
    return _KNOWN[key][1]


def _columns(rows: Array) -> Array:
    """Rows (..., F) in double precision that lie column by column: rules look at one at a time."""
    return np.moveaxis(np.moveaxis(rows, -1, 0).astype(np.float64, order="C"), 0, -1)


def _of(rows: Array, wanted: NDArray[np.bool_]) -> Array:
    """Some (n, F) of rows (..., F), column by column."""
    return np.moveaxis(rows, -1, 0)[:, wanted].T


def _nearest(
    x: Array, found: Array, values: Array, allow: Any, lower: Array, upper: Array
) -> Array:
    """The nearest of the values that x may become, within its range."""
    apart = np.abs(found[..., None] - values)
    may = (values >= lower[..., None]) & (values <= upper[..., None])
    for before, after in allow.items():
        may &= (x[..., None] != before) | np.isin(values, (*after, before))
    apart = np.where(may, apart, np.inf)
    return np.where(may.any(-1), values[apart.argmin(-1)], x)
