"""The last sketches of a client, in a memory that does not grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._sketch import WORDS, differing

Array = NDArray[Any]

_FIRST = 64


class Ring:
    """The last `size` sketches, 64 bytes each; room grows with what is put in."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self._kept = np.zeros((2 * WORDS, min(size, _FIRST)), np.uint64)

    def near(self, sketch: Array, radii: tuple[int, int]) -> int:
        """How many of those kept differ from a sketch (8,) in at most so many bits of a half."""
        kept = self._kept[:, : min(self.count, self.size)]
        # Whoever is near in a half is near in its first word, which rules out most of them.
        near = np.bitwise_count(kept[0] ^ sketch[0]) <= radii[0]
        near |= np.bitwise_count(kept[WORDS] ^ sketch[WORDS]) <= radii[1]
        found = differing(kept[:, np.flatnonzero(near)], sketch)
        return int(((found[0] <= radii[0]) | (found[1] <= radii[1])).sum())

    def put(self, sketch: Array) -> None:
        """Keep a sketch (8,) in the place of the oldest."""
        room = self._kept.shape[1]
        if self.count == room < self.size:
            grown = np.zeros((2 * WORDS, min(self.size, 2 * room)), np.uint64)
            grown[:, :room] = self._kept
            self._kept = grown
        self._kept[:, self.count % self.size] = sketch
        self.count += 1
