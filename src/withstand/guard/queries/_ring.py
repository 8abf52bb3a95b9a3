"""The last queries of a client in one place, in a memory that does not grow."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FIRST = 8
_UNTOLD = array("f", (np.nan, np.nan, np.nan))


class Near(NamedTuple):
    """Near copies: where in a ring they are, and how near, from 0 at a length away to 1."""

    slots: Array
    weights: Array

    @property
    def score(self) -> float:
        """How many they are, each as far as it is near."""
        return float(self.weights.sum()) if len(self.weights) else 0.0


NONE = Near(np.empty(0, np.intp), np.empty(0, np.float32))


class Spot(NamedTuple):
    """Where a query lies: its place (D + 1,) with a 1 at its end, its squared length, and a digest
    of all of the query."""

    place: Array
    squared: float
    digest: int


class Ring:
    """The last `size` queries, and what was answered; room grows with what is put in."""

    def __init__(self, size: int, axes: int) -> None:
        self.size, self.count, self.room = size, 0, min(size, FIRST)
        # In the first two one number is set in a twentieth of the time that numpy takes for it.
        self._told, self._digests = _UNTOLD * self.room, array("q", (0,)) * self.room
        self._kept = _nowhere(self.room, axes)

    @property
    def told(self) -> Array:
        """The class, the margin and the descent of each (N, 3), NaN where there was no answer."""
        return np.frombuffer(self._told, np.float32).reshape(-1, 3)

    def near(self, spot: Spot) -> Near:
        """Those within one length, weighed by one less the squared distance (Epanechnikov).

        An exact repetition is no near copy: it is how clients try again, and tells nothing new.
        """
        # Half of what is one minus the squared distance, less what is the same for all.
        close = self._kept.dot(spot.place)
        least = (spot.squared - 1) / 2
        top = int(close.argmax())
        # Who tries again is nearest to that, and mostly to nothing else.
        if self._digests[top] == spot.digest:
            close[top] = -np.inf
            top = int(close.argmax())
        # Mostly nothing is near. NaN, if there is one, is what argmax finds, and tells nothing.
        if close.item(top) <= least:
            return NONE
        slots = (close > least).nonzero()[0]
        if len(slots):
            slots = slots[np.frombuffer(self._digests, np.int64)[slots] != spot.digest]
        return Near(slots, 2 * (close[slots] - least)) if len(slots) else NONE

    def put(self, spot: Spot) -> int:
        """Keep a query in the place of the oldest; its number among all that were put in."""
        number = self.count
        if number == self.room < self.size:
            self._grow()
        slot = number % self.size
        self._kept[slot] = spot.place
        self._kept[slot, -1] = -spot.squared / 2
        self._digests[slot] = spot.digest
        self._told[3 * slot : 3 * slot + 3] = _UNTOLD
        self.count = number + 1
        return number

    def tell(self, number: int, told: tuple[float, float, float]) -> None:
        """Note what was answered, unless the query has been forgotten meanwhile."""
        if self.count - number <= self.size:
            slot = 3 * (number % self.size)
            self._told[slot : slot + 3] = array("f", told)

    def _grow(self) -> None:
        more = min(self.size, 2 * self.room) - self.room
        self._told = self._told + _UNTOLD * more
        self._kept = np.vstack((self._kept, _nowhere(more, self._kept.shape[1] - 1)))
        self._digests = self._digests + array("q", (0,)) * more
        self.room += more


def _nowhere(rows: int, axes: int) -> Array:
    """Places of no query, near to nothing."""
    found = np.zeros((rows, axes + 1), np.float32)
    found[:, -1] = -np.inf
    return found
