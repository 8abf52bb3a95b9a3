"""Rows of a table brought back to what an attacker can make of the row before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

Array = NDArray[Any]

_ROUNDS = 3
# Of what is missing to an inequality, so that rounding does not leave a little of it missing.
_FURTHER = 1 + 1e-6


class _Half(NamedTuple):
    """factors (F,) and constant of a linear rule: their sum is at most 0, or 0 where it is even."""

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
    by taking back the smallest changes.
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

    def __call__(self, x: Array, points: Array, lower: Array, upper: Array) -> Array:
        """Repaired candidates (B, M, F), float32; lower, upper (B, F): what x (B, F) can become."""
        x, lower, upper = (one[:, None].astype(np.float64) for one in (x, lower, upper))
        found = self._snapped(x, points.astype(np.float64), lower, upper)
        for _ in range(_ROUNDS):
            if not self._related(found, lower, upper):
                break
            found = self._snapped(x, found, lower, upper)
        found = self._spared(x, self._single(found), lower, upper)
        return np.asarray(found.astype(np.float32))

    def feasible(self, x: Array, points: Array) -> NDArray[np.bool_]:
        """Which candidates (B, M, F) of rows x (B, F) the attacker can make."""
        flat = points.reshape(-1, points.shape[-1])
        return self.capability.contains(np.repeat(x, points.shape[1], 0), flat).reshape(
            points.shape[:2]
        )

    def _snapped(self, x: Array, points: Array, lower: Array, upper: Array) -> Array:
        """In their ranges, on their grids, of their categories, and one choice of each group."""
        found = np.clip(points, lower, upper)
        places = np.flatnonzero(self._grid)
        if len(places):
            step, low, high = self._grid[places], lower[..., places], upper[..., places]
            least, most = np.ceil(low / step), np.floor(high / step)
            count = np.clip(np.rint(found[..., places] / step), least, most)
            # Single precision may round a multiple out of its range.
            there = (count * step).astype(np.float32)
            count += (there < low).astype(float) - (there > high)
            inside = (least <= most) & (count >= least) & (count <= most)
            found[..., places] = np.where(inside, count * step, x[..., places])
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
                factors = np.zeros(len(self._index))
                for name, factor in form[0].items():
                    factors[self._index[name]] = factor
                yield tree, _Half(factors, form[1], tree.op == "==")
            elif tree.op == "==":
                for one, other in ((tree.left, tree.right), (tree.right, tree.left)):
                    if isinstance(one, Column) and one.name not in set(names(other)):
                        yield tree, _Given(self._index[one.name], other)

    def _related(self, found: Array, lower: Array, upper: Array) -> bool:
        """Move what breaks relations, in place; False where none is broken."""
        if self._made.any():
            found[...] = self.capability.derive(found)
        broken = False
        for relation, mends in zip(self.capability.relations, self._mends, strict=True):
            wrong = ~relation.holds(found, self._index)
            if not wrong.any() or not mends:
                continue
            broken = True
            lacks = np.stack([
                np.broadcast_to(excess(part, column_of(found, self._index)), wrong.shape)
                for part, _ in mends
            ])  # fmt: skip
            either = isinstance(relation.tree, Either)
            chosen = lacks.argmin(0)
            for number, (_, way) in enumerate(mends):
                rows = wrong & (lacks[number] > 0) & ((chosen == number) | (not either))
                if rows.any():
                    self._moved(found, rows, way, lower, upper)
        return broken

    def _moved(
        self, found: Array, rows: Array, way: _Half | _Given, lower: Array, upper: Array
    ) -> None:
        points = found[rows]
        low, high = (np.broadcast_to(end, found.shape)[rows] for end in (lower, upper))
        if isinstance(way, _Given):
            wanted = np.asarray(value(way.tree, column_of(points, self._index)))
            points[:, way.place] = np.clip(wanted, low[:, way.place], high[:, way.place])
        else:
            movable = (way.factors != 0) & ~self._made
            factors = way.factors * movable
            # Not by matmul, whose rounding depends on how many rows there are.
            lack = (points * way.factors).sum(1) + way.constant
            up = np.where(lack[:, None] > 0, -1.0, 1.0) * np.sign(factors)
            reach = np.where(up > 0, high - points, points - low)
            room = np.where(movable, reach, 0.0) * np.abs(factors)
            room = np.where(np.isfinite(room), room, np.abs(lack)[:, None])
            share = np.abs(lack) * (1.0 if way.even else _FURTHER) / np.maximum(room.sum(1), 1e-300)
            step = room * np.minimum(share, 1.0)[:, None]
            points += up * np.divide(step, np.abs(factors), where=movable, out=np.zeros_like(step))
            if not way.even:
                grid = np.where(movable, self._grid, 0.0)
                places = np.flatnonzero(grid)
                count = points[:, places] / grid[places]
                outward = np.where(up[:, places] > 0, np.ceil(count), np.floor(count))
                points[:, places] = outward * grid[places]
        found[rows] = points

    def _spared(self, x: Array, found: Array, lower: Array, upper: Array) -> Array:
        """With the smallest changes taken back until their number and cost are allowed."""
        most, budget = self.capability.most_changed, self.capability.most_cost
        if most is None and budget is None:
            return found
        width = np.maximum(upper - lower, 1e-12)
        size = np.where(np.isfinite(width), np.abs(found - x) / width, np.abs(found - x))
        moved = found != x
        cost = self._costs[0] * np.abs(found - x) + self._costs[1] * moved
        units = [(size[..., n], cost[..., n], [n]) for n in np.flatnonzero(self._own).tolist()]
        for group, told in zip(self._choices, self.capability.choices, strict=True):
            one = moved[..., group].any(-1)
            units.append((one * 1.0, told.cost * one + cost[..., group].sum(-1), group))
        sizes, costs = (np.stack([unit[n] for unit in units], -1) for n in (0, 1))
        order = np.argsort(-sizes, axis=-1, kind="stable")
        spent = np.take_along_axis(costs, order, -1).cumsum(-1)
        kept = np.ones(order.shape, bool)
        if most is not None:
            kept &= np.arange(order.shape[-1]) < most
        if budget is not None:
            kept &= spent <= budget
        back = np.empty_like(kept)
        np.put_along_axis(back, order, ~kept, -1)
        for number, (_, _, places) in enumerate(units):
            gone = back[..., number, None]
            found[..., places] = np.where(gone, x[..., places], found[..., places])
        return self._single(found)

    def _single(self, found: Array) -> Array:
        """With what is derived, from the single precision in which rows are handed in."""
        return self.capability.derive(found.astype(np.float32))


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
