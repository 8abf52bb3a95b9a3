"""Histograms of the last rows, a window at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import Histograms
from ...stats import stability, stability_by_chance

Array = NDArray[Any]

_COMPARED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class FeatureReading:
    """The population stability index of one feature, and what it exceeds only rarely by chance."""

    index: float
    bound: float

    @property
    def moved(self) -> bool:
        """Whether the feature surely has another distribution."""
        return self.index > self.bound


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a full window said of each feature, when it was full (seconds since 1970)."""

    ended: float
    features: dict[str, FeatureReading]


class Window:
    """Counts rows (B, F) in the bins of `usual`, and judges them each time there are `rows`.

    chance: of a full window to have any feature moved where none has. The features share a third of
    it, since the index's tail was found up to three times as heavy as chi-squared where a category
    is rare. No row is kept, and the memory is that of two histograms of each feature.
    """

    def __init__(self, usual: Histograms, *, rows: int, chance: float) -> None:
        self.usual, self.rows = usual, rows
        self.seen = 0
        self.last: Reading | None = None
        held = list(usual.features.values())
        width = max(len(one.points) for one in held)
        self._points = np.full((len(held), width + 1), np.inf)
        for place, one in enumerate(held):
            self._points[place, : len(one.points)] = one.points
        self._single = np.array([one.single for one in held])
        self._others = np.array([len(one.points) for one in held])
        self._each = np.arange(len(held))
        self._counts = np.zeros(self._points.shape, np.int64)
        self._bounds = [
            stability_by_chance(len(one.counts), usual.rows, rows, chance / 3 / len(held))
            for one in held
        ]

    @property
    def wanted(self) -> int:
        """How many rows are still wanted until the window is full."""
        return self.rows - self.seen

    def add(self, values: Array) -> None:
        """Count rows (B, F) of finite numbers; some 25 microseconds for one of 22 features."""
        step = max(1, _COMPARED // self._points.size)
        while len(values):
            part = values[: min(step, self.wanted)]
            values = values[len(part) :]
            places = (self._points < part[:, :, None]).sum(2)
            strange = self._single & (self._points[self._each, places] != part)
            places = np.where(strange, self._others, places)
            flat = places + self._each * self._points.shape[1]
            self._counts += np.bincount(flat.ravel(), minlength=self._counts.size).reshape(
                self._counts.shape
            )
            self.seen += len(part)
            if not self.wanted:
                self._judge()

    def _judge(self) -> None:
        found = {}
        for place, (name, one) in enumerate(self.usual.features.items()):
            index = stability(one.counts, self._counts[place, : len(one.counts)])
            found[name] = FeatureReading(index=index, bound=self._bounds[place])
        self.last = Reading(ended=time.time(), features=found)
        self._counts[:] = 0
        self.seen = 0

    def told(self) -> dict[str, Any]:
        """As plain values: the last full window, if there was one, and the rows still wanted."""
        last = self.last
        return {
            "rows": self.rows,
            "wanted": self.wanted,
            "ended": None if last is None else round(last.ended, 3),
            "moved": None if last is None else [
                name for name, one in last.features.items() if one.moved
            ],
            "features": {} if last is None else {
                name: {"index": one.index, "bound": one.bound, "moved": one.moved}
                for name, one in last.features.items()
            },
        }  # fmt: skip
