"""How many different things there were, in little memory."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable

_SPAN = 2**64


class Distinct:
    """Counts different texts: exactly below `room`, then within some 1 / sqrt(room) of it.

    It keeps the smallest hashes, of which the largest tells how dense they are (Bar-Yossef et al.
    2002, the k minimum values).
    """

    def __init__(self, room: int = 256, kept: Iterable[int] = ()) -> None:
        self.room, self.kept = room, sorted(kept)[:room]

    def add(self, text: str) -> None:
        """Count a text."""
        self.take(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    def take(self, number: int) -> None:
        """Count what has this hash."""
        if len(self.kept) >= self.room and number >= self.kept[-1]:
            return
        at = bisect_left(self.kept, number)
        if at < len(self.kept) and self.kept[at] == number:
            return
        insort(self.kept, number)
        del self.kept[self.room :]

    def __len__(self) -> int:
        if len(self.kept) < self.room:
            return len(self.kept)
        # So many there were at least.
        return max(self.room, round((self.room - 1) * _SPAN / (self.kept[-1] + 1)))
