"""What an attacker of a table can do: feature by feature, and what must still add up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError, ThreatError, listed, one_line
from .._region import L0, Region
from ._feature import Feature, OneHot
from ._relation import Derived, Relation

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Capability(Region):
    """The rows that an attacker can make of a row x, in the raw space of a table (B, F).

    features: the columns in their order. choices: groups of columns that are one choice.
    relations, derived: what must hold afterwards. most_changed: how many features, a choice counts
    once, what is derived does not; most_cost: in the units of the features' costs. Raises
    ThreatError for what contradicts itself: unknown columns, one that is derived twice or from
    itself, one that is in two choices.
    """

    features: tuple[Feature, ...]
    choices: tuple[OneHot, ...] = ()
    relations: tuple[Relation, ...] = ()
    derived: tuple[Derived, ...] = ()
    most_changed: int | None = None
    most_cost: float | None = None
    index: dict[str, int] = field(init=False, repr=False)
    order: tuple[Derived, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        index = {one.name: place for place, one in enumerate(self.features)}
        if len(index) < len(self.features):
            names = [one.name for one in self.features]
            raise ThreatError(f"feature {_twice(names)!r} is there twice; take one out")
        object.__setattr__(self, "index", index)
        grouped = [name for one in self.choices for name in one.columns]
        made = [one.name for one in self.derived]
        used = [*grouped, *made]
        for one in self.relations:
            used += one.columns
        for item in self.derived:
            used += item.columns
        if unknown := [name for name in used if name not in index]:
            raise ThreatError(f"{unknown[0]!r} is no feature; it is one of {listed(index)}")
        if len(set(grouped + made)) < len(grouped + made):
            raise ThreatError(
                f"feature {_twice(grouped + made)!r} is derived or chosen twice; take one out"
            )
        object.__setattr__(self, "order", tuple(_ordered(self.derived)))

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
        wrong = np.zeros(len(x_adv), bool)
        for _, broken in self.broken(x, x_adv):
            wrong |= broken
        return ~wrong

    def broken(self, x: ArrayLike, x_adv: ArrayLike) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """The rules in words, and which rows of x_adv (B, F), made of x (B, F), break each."""
        x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
        if x.ndim != 2 or x.shape != x_adv.shape or x.shape[1] != len(self.features):
            raise ThreatError(
                f"rows have shapes {x.shape} and {x_adv.shape}, and there are "
                f"{len(self.features)} features; give tables with a column for each"
            )
        made = {one.name for one in self.derived}
        for place, feature in enumerate(self.features):
            before, after = x[:, place], x_adv[:, place]
            for why, rows in feature.broken(after if feature.name in made else before, after):
                yield f"{feature.name} {why}", rows
        for group in self.choices:
            yield f"{_named(group)} is no choice", group.broken(x_adv[:, self._places(group)])
        for item in self.derived:
            yield f"{item.name} == {item.text}", item.broken(x_adv, self.index)
        for relation in self.relations:
            yield relation.text, ~relation.holds(x_adv, self.index)
        if self.most_changed is not None:
            count = self.changed(x, x_adv)
            yield f"at most {self.most_changed} features change", count > self.most_changed
        if self.most_cost is not None:
            yield f"costs at most {self.most_cost:g}", self.cost(x, x_adv) > self.most_cost

    def wrong(self, x: ArrayLike) -> list[tuple[int, str]]:
        """The rules that rows (B, F) break before any attack, as (row, rule)."""
        x = np.asarray(x, np.float64)
        found = [(int(row), why) for why, rows in self.broken(x, x) for row in np.flatnonzero(rows)]
        return sorted(found, key=lambda one: one[0])

    def check(self, x: ArrayLike) -> None:
        """Raises DataError for rows (B, F) that break a rule before any attack, with the first."""
        if wrong := self.wrong(x):
            (row, rule), rows = wrong[0], len({row for row, _ in wrong})
            raise DataError(
                f"row {row} breaks the rule {one_line(rule, 120)!r} before any attack, as do "
                f"{rows} of {len(np.asarray(x))} rows some rule; correct the rule in the table's "
                "file, give it a tolerance (~ 0.01), or drop those rows"
            )

    def changed(self, x: Array, x_adv: Array) -> Array:
        """How many features have changed (B,): a choice is one, what is derived is none."""
        moved = x_adv != x
        held = [self.index[one.name] for one in self.derived]
        count = moved.sum(1) - moved[:, held].sum(1)
        for group in self.choices:
            places = moved[:, self._places(group)]
            count = count - places.sum(1) + places.any(1)
        return np.asarray(count)

    def cost(self, x: Array, x_adv: Array) -> Array:
        """What the change costs the attacker (B,)."""
        total = np.zeros(len(x))
        made = {one.name for one in self.derived}
        for place, one in enumerate(self.features):
            if one.name not in made:
                total += one.spent(x[:, place], x_adv[:, place])
        for group in self.choices:
            places = self._places(group)
            total += group.cost * (x[:, places] != x_adv[:, places]).any(1)
        return total

    def box(self, x: ArrayLike) -> tuple[Array, Array]:
        """The least and the largest value (B, F) of each feature; what is derived has none."""
        x = np.asarray(x, np.float64)
        ends = [one.box(x[:, place]) for place, one in enumerate(self.features)]
        low, high = (np.stack(side, 1) for side in zip(*ends, strict=True))
        for item in self.derived:
            place = self.index[item.name]
            low[:, place], high[:, place] = -np.inf, np.inf
        return low, high

    def derive(self, rows: ArrayLike) -> Array:
        """The rows (..., F) with what is derived computed anew."""
        rows = np.array(rows, np.float64)
        for item in self.order:
            rows[..., self.index[item.name]] = item.value(rows, self.index)
        return rows

    def content(self) -> bytes:
        return repr(self).encode()

    @property
    def implied(self) -> Region:
        """Distances are told in columns that change; there is no limit but the capability's own."""
        return L0(len(self.features))

    def describe(self) -> str:
        held = sum(one.change == "none" for one in self.features)
        parts = [
            f"{len(self.features) - held - len(self.derived)} of {len(self.features)} features"
        ]
        if self.relations:
            some = len(self.relations)
            parts.append(f"{some} relation{'s hold' if some > 1 else ' holds'}")
        if self.most_changed is not None:
            parts.append(f"at most {self.most_changed} change")
        if self.most_cost is not None:
            parts.append(f"cost <= {self.most_cost:.6g}")
        # Two reports are of one threat only if all of the rules are the same.
        parts.append(f"rules {blake2b(self.content(), digest_size=4).hexdigest()}")
        return ", ".join(parts)

    def _places(self, group: OneHot) -> list[int]:
        return [self.index[name] for name in group.columns]


def _ordered(derived: tuple[Derived, ...]) -> Iterator[Derived]:
    """Each after those that it follows from; raises ThreatError for a circle."""
    left = {one.name: one for one in derived}
    while left:
        ready = [one for one in left.values() if not one.columns & left.keys()]
        if not ready:
            raise ThreatError(
                f"{listed(sorted(left))} follow from each other; let one of them be given"
            )
        for one in ready:
            yield left.pop(one.name)


def _twice(names: list[str]) -> str:
    return next(name for place, name in enumerate(names) if name in names[:place])


def _named(group: OneHot) -> str:
    return listed(group.columns, 3)
