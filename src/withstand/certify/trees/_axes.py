"""Where the cuts of a forest part what each feature can become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...threat.tabular import Capability, Feature, span

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What one feature of a row can become, in the parts between the cuts, from low to high.

    first, last (m + 1,): the least and the largest possible value of each part. cut (cuts + 2,):
    the part that ends at each cut of the feature, -1 where all values lie above it; with what no
    cut is before and behind them. value: before the attack.
    """

    first: Array
    last: Array
    cut: Array
    value: float

    @property
    def ends(self) -> int:
        """How many ends there are between parts."""
        return len(self.first) - 1

    def part(self, values: ArrayLike) -> Array:
        """The parts (...) that values (...) lie in, of which nothing else is asked."""
        return np.asarray(np.searchsorted(self.last[:-1], values))

    def nearest(self, parts: Array) -> Array:
        """The values (...) in parts (...) that are nearest to the one before."""
        return np.asarray(np.clip(self.value, self.first[parts], self.last[parts]))


def axes_of(
    cuts: tuple[Array, ...], x: Array, lower: Array, upper: Array, capability: Capability | None
) -> list[Axis]:
    """The axes of a row x (F,) between lower and upper (F,)."""
    low, high = np.array(lower, np.float64), np.array(upper, np.float64)
    told: list[Feature | None] = [None] * len(cuts)
    chosen: set[int] = set()
    if capability is not None:
        told = list(capability.features)
        chosen = {capability.index[name] for one in capability.choices for name in one.columns}
        for one in capability.derived:
            # What follows from others becomes what it may, whatever it was.
            place = capability.index[one.name]
            told[place] = replace(capability.features[place], allow={})
        _follow(capability, low, high)
    return [
        _axis(told[n], n in chosen, float(x[n]), float(low[n]), float(high[n]), cuts[n])
        for n in range(len(cuts))
    ]


def _follow(capability: Capability, low: Array, high: Array) -> None:
    """Narrow the ranges of what is derived to what those that it follows from allow, in place."""
    index = capability.index
    for item in capability.order:
        bounds = span(item.tree, lambda name: (low[index[name]], high[index[name]]))
        ends, place = np.array([bounds.low, bounds.high]), index[item.name]
        if np.isfinite(ends).all():
            # It is handed in in single precision, and may be off by a share of `precision`.
            room = 2 * item.precision * np.maximum(np.abs(ends).max(), 1)
            low[place] = max(low[place], ends[0] - room)
            high[place] = min(high[place], ends[1] + room)


def _axis(
    feature: Feature | None, chosen: bool, value: float, low: float, high: float, cuts: Array
) -> Axis:
    """The axis between low and high.

    A whole number, a multiple or a category has values between cuts or not: cuts without a value
    between them are one.
    """
    possible = _possible(feature, chosen, value, low, high)
    wide = cuts.astype(np.float64)
    if possible is not None:
        low, high = float(possible[0]), float(possible[-1])
        inside = wide[(wide >= low) & (wide < high)]
        behind = np.searchsorted(possible, inside, "right")
        ends, starts = possible[behind - 1], possible[behind]
    else:
        low, high = _inward(low, value, np.inf), _inward(high, value, -np.inf)
        inside = wide[(wide >= low) & (wide < high)]
        ends, starts = inside, np.nextafter(inside.astype(np.float32), np.float32(np.inf))
        if feature is not None and feature.integer and feature.step is None:
            low, high, ends = np.ceil(low), np.floor(high), np.floor(ends)
            starts = np.maximum(ends + 1, np.ceil(starts.astype(np.float64)))
            real = (ends >= low) & (starts <= high)
            ends, starts = ends[real], starts[real]
    new = np.diff(ends, prepend=-np.inf) > 0
    ends, starts = ends[new], starts[new]
    place = np.searchsorted(ends, wide, "right") - 1
    return Axis(
        first=np.concatenate(([low], starts)).astype(np.float64),
        last=np.concatenate((ends, [high])).astype(np.float64),
        # A cut at or above the highest value is behind all parts.
        cut=np.concatenate(([-1], np.where(wide >= high, len(ends), place), [len(ends)])),
        value=value,
    )


def _inward(end: float, value: float, toward: float) -> float:
    """The first number of single precision from an end on."""
    if not np.isfinite(end) or end == value:
        return end
    near = np.float32(end)
    # As doubles: numpy would round the end to single precision before it compares.
    outside = float(near) < end if toward > 0 else float(near) > end
    return float(np.nextafter(near, np.float32(toward)) if outside else near)


_MOST = 100_000


def _possible(
    feature: Feature | None, chosen: bool, value: float, low: float, high: float
) -> Array | None:
    """The values there are between low and high, in single precision; None for all of them."""
    if low == high:
        return np.array([low])
    if chosen:
        found = np.array([0.0, 1.0])
    elif feature is None:
        return None
    elif feature.values is not None:
        found = np.array(sorted(feature.allow.get(value, feature.values)), np.float64)
    elif feature.step is not None:
        # One more at each end: in single precision a multiple may lie on the other side of it.
        first, last = np.floor(low / feature.step), np.ceil(high / feature.step)
        if not last - first < _MOST:
            # So many that between two cuts there is nearly always one: it is checked at the end.
            return None
        found = np.arange(first, last + 1) * feature.step
        found = found.astype(np.float32).astype(np.float64)
    else:
        return None
    return np.union1d(found[(found >= low) & (found <= high)], [value])
