"""How often somebody may try to log in."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class Throttle:
    """Failures by name, of which each may have `most` within `seconds`; bounded in memory.

    Of more than `names` the one that was longest not heard of is forgotten.
    """

    def __init__(
        self, most: int, seconds: float, *, names: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._most, self._seconds, self._names, self._clock = most, seconds, names, clock
        self._failed: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> bool:
        """Count an attempt before it is made, so that many at once count too; False: no more."""
        with self._lock:
            left = self._left(name)
            allowed = left >= 1
            self._failed[name] = (left - allowed, self._clock())
            self._failed.move_to_end(name)
            while len(self._failed) > self._names:
                self._failed.popitem(last=False)
        return allowed

    def give_back(self, name: str) -> None:
        """Take an attempt that was right out of the count, and none of those before it."""
        with self._lock:
            self._failed[name] = (min(float(self._most), self._left(name) + 1), self._clock())

    def _left(self, name: str) -> float:
        left, at = self._failed.get(name, (float(self._most), self._clock()))
        return min(float(self._most), left + (self._clock() - at) * self._most / self._seconds)
