"""What an attacker can do to one feature, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._errors import ThreatError

Array = NDArray[Any]
Change = Literal["both", "increase", "decrease", "none"]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A column, in the units of the raw table.

    change: in which direction, or not at all. lower, upper: its range. step: what its values are
    multiples of. values: the only ones there are, such as the codes of categories; allow: to which
    of them each may become, for those that are named. most: the largest change, share: the largest
    as a share of the value before. cost: of a unit of change, fixed: of any change at all. integer:
    whole numbers only. labels: the names of `values` where they are categories. date: values are
    days since 1970. Raises ThreatError for what contradicts itself.
    """

    name: str
    change: Change = "both"
    lower: float = -np.inf
    upper: float = np.inf
    integer: bool = False
    step: float | None = None
    values: tuple[float, ...] | None = None
    allow: Mapping[float, tuple[float, ...]] = field(default_factory=dict)
    most: float | None = None
    share: float | None = None
    cost: float = 0.0
    fixed: float = 0.0
    labels: tuple[str, ...] | None = None
    date: bool = False

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise self._wrong(f"has the range {self.lower:g} to {self.upper:g}; swap them")
        for key in ("step", "most", "share"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise self._wrong(f"has {key} {value:g}; give more than 0, or leave it out")
        for key in ("cost", "fixed"):
            if not getattr(self, key) >= 0:
                raise self._wrong(f"has {key} {getattr(self, key):g}; give at least 0")
        if self.values is not None and not any(self._inside(one) for one in self.values):
            raise self._wrong("has no value within its range; widen it")
        if self.labels is not None and len(self.labels) != len(self.values or ()):
            raise self._wrong(f"has {len(self.labels)} labels; give one for each of its values")
        if self.allow and self.values is None:
            raise self._wrong("allows changes between values, and has none; give values")
        for before, after in self.allow.items():
            unknown = {before, *after} - set(self.values or ())
            if unknown:
                raise self._wrong(f"allows {min(unknown):g}, which is none of its values")

    def box(self, x: Array) -> tuple[Array, Array]:
        """The least and the largest value (B,) that each of x (B,) may become, steps aside."""
        low, high = np.full(x.shape, self.lower), np.full(x.shape, self.upper)
        if self.values is not None:
            low, high = np.maximum(low, min(self.values)), np.minimum(high, max(self.values))
        for reach in self._reaches(x):
            low, high = np.maximum(low, x - reach), np.minimum(high, x + reach)
        if self.change in ("increase", "none"):
            low = np.maximum(low, x)
        if self.change in ("decrease", "none"):
            high = np.minimum(high, x)
        return low, high

    def broken(self, x: Array, after: Array) -> Iterator[tuple[str, Array]]:
        """The rules by name, and which of the values `after` (B,), that were x (B,), break each."""
        moved = after != x
        yield "is not a number", ~np.isfinite(after)
        yield "leaves its range", ~self._inside(after)
        if self.integer:
            yield "is no whole number", after != np.rint(after)
        if self.step is not None:
            yield f"is no multiple of {self.step:g}", ~on_grid(after, self.step)
        if self.values is not None:
            yield "is none of its values", ~np.isin(after, self.values)
        if self.change == "none":
            yield "is not to be changed", moved
        if self.change == "increase":
            yield "is only to increase", after < x
        if self.change == "decrease":
            yield "is only to decrease", after > x
        for before, there in self.allow.items():
            yield (
                f"cannot become that from {before:g}",
                (moved & (x == before) & ~np.isin(after, there)),
            )
        for reach in self._reaches(x):
            yield "changes by too much", np.abs(after - x) > reach

    def spent(self, x: Array, after: Array) -> Array:
        """What the change costs the attacker (B,)."""
        return np.asarray(self.cost * np.abs(after - x) + self.fixed * (after != x))

    def _reaches(self, x: Array) -> Iterator[Array]:
        if self.most is not None:
            yield np.full(x.shape, self.most)
        if self.share is not None:
            yield self.share * np.abs(x)

    def _inside(self, value: Any) -> Any:
        return (value >= self.lower) & (value <= self.upper)

    def _wrong(self, why: str) -> ThreatError:
        return ThreatError(f"feature {self.name!r} {why}")


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """Columns of which exactly one is 1 and all others are 0: one choice, and one change.

    cost: of another choice.
    """

    columns: tuple[str, ...]
    cost: float = 0.0

    def broken(self, after: Array) -> Array:
        """Which rows (B, columns) are no choice."""
        return np.asarray(~(np.isin(after, (0, 1)).all(1) & (after.sum(1) == 1)))


def on_grid(values: Array, step: float) -> NDArray[np.bool_]:
    """Which values are multiples of a step, as near as single precision can say it.

    Data sets are kept in single precision, in which 0.07 is no multiple of 0.01 to the last bit.
    """
    with np.errstate(all="ignore"):
        nearest = np.rint(np.asarray(values, np.float64) / step) * step
    return np.asarray(nearest.astype(np.float32) == np.asarray(values).astype(np.float32))
