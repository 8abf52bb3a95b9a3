"""Where the cuts of a forest part what each feature can become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Feature

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A feature of one row: from low to high, in its parts between the cuts.

    ends (m,): the last possible value of each part but the last one's; starts (m,): the first
    possible value behind it. value: before the attack.
    """

    low: float
    high: float
    ends: Array
    starts: Array
    value: float

    def part(self, below: Array) -> tuple[float, float]:
        """The part for which `below` (m,) says behind which ends it is not."""
        after = self.ends[below]
        before = self.starts[~below]
        return (
            float(before.max()) if len(before) else self.low,
            float(after.min()) if len(after) else self.high,
        )


def axis_of(
    feature: Feature | None, value: float, low: float, high: float, cuts: Array
) -> tuple[Axis, dict[float, int]]:
    """The axis between low and high, and which end stands for which cut: -1 none, m all.

    A whole number, a multiple or a category has values between cuts or not: cuts without a value
    between them are one.
    """
    possible = _possible(feature, value, low, high)
    if possible is not None:
        low, high = float(possible[0]), float(possible[-1])
    ends: list[float] = []
    starts: list[float] = []
    place: dict[float, int] = {}
    for cut in cuts.tolist():
        if cut < low:
            place[cut] = -1
            continue
        if cut >= high:
            place[cut] = len(ends)
            continue
        if possible is None:
            end, start = cut, float(np.nextafter(np.float32(cut), np.float32(np.inf)))
        else:
            behind = int(np.searchsorted(possible, cut, "right"))
            end, start = float(possible[behind - 1]), float(possible[behind])
        if not ends or end > ends[-1]:
            ends.append(end)
            starts.append(start)
        place[cut] = len(ends) - 1
    found = Axis(low=low, high=high, ends=np.array(ends), starts=np.array(starts), value=value)
    # A cut at or above the highest value is behind all parts, however many came to be.
    return found, {cut: len(ends) if cut >= high else at for cut, at in place.items()}


_MOST = 100_000


def _possible(feature: Feature | None, value: float, low: float, high: float) -> Array | None:
    """The values there are between low and high, in single precision; None for all of them."""
    if feature is None or low == high:
        return None
    if feature.values is not None:
        allowed = np.array(sorted(feature.allow.get(value, feature.values)), np.float64)
        found = np.union1d(allowed[(allowed >= low) & (allowed <= high)], [value])
    elif feature.integer or feature.step is not None:
        step = feature.step or 1.0
        first, last = np.ceil(low / step), np.floor(high / step)
        if not last - first < _MOST:
            # So many that between two cuts there is nearly always one: it is checked at the end.
            return None
        found = np.arange(first, last + 1) * step
        found = found.astype(np.float32).astype(np.float64)
        found = np.union1d(found[(found >= low) & (found <= high)], [value])
    else:
        return None
    return np.asarray(found)
