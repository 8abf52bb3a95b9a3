"""Inputs that are known from before, nearest first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evidence import Corpus, Entry

Array = NDArray[Any]
_MOST = 4096
_BYTES = 256 * 2**20
_TOGETHER = 64


@dataclass(frozen=True, kw_only=True)
class Near:
    """An input that is like another one: its values, the distances between, and what it is."""

    values: Array
    l0: int
    l2: float
    linf: float
    what: str
    more: str = ""


def near(x: Array, values: Array, what: str, more: str = "") -> Near:
    """How far one input (of the same shape) is from x."""
    gap = values.astype(np.float64) - x.astype(np.float64)
    size = np.abs(gap)
    return Near(
        values=values, l0=int(np.count_nonzero(gap)), l2=float(np.sqrt((gap * gap).sum())),
        linf=float(size.max(initial=0.0)), what=what, more=more,
    )  # fmt: skip


def nearest(x: Array, given: Iterable[tuple[Array, str, str]], most: int) -> list[Near]:
    """Those of the same shape that are nearest in Euclidean distance, nearest first."""
    found = [near(x, values, what, more) for values, what, more in given if values.shape == x.shape]
    return sorted(found, key=lambda one: one.l2)[:most]


class Corpora:
    """The newest inputs of a corpus, held in memory until it has a new version."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._held: tuple[str, list[tuple[Array, Entry]]] = ("", [])

    def nearest(self, x: Array, most: int = 3) -> list[Near]:
        """The entries nearest to x; raises CorpusError for a corpus that is damaged."""
        return nearest(x, ((values, _what(entry), _more(entry)) for values, entry in self._all()),
                       most)  # fmt: skip

    def summary(self) -> dict[str, Any] | None:
        """Its version, entries and kinds, None where there is no corpus."""
        if self.folder is None or not self.folder.is_dir():
            return None
        head = Corpus(self.folder).head
        return None if head is None else {"version": head.number, "entries": head.total}

    def _all(self) -> list[tuple[Array, Entry]]:
        if self.folder is None or not self.folder.is_dir():
            return []
        with self._lock:
            corpus = Corpus(self.folder)
            head = corpus.head
            if head is not None and self._held[0] != head.digest:
                newest = deque(corpus.entries(), _MOST)
                self._held = head.digest, list(_within(corpus, newest))
            return self._held[1]


def _within(corpus: Corpus, entries: deque[Entry]) -> Iterator[tuple[Array, Entry]]:
    """The newest with their values, as many as there is room for."""
    room = _BYTES
    while entries:
        some = [entries.pop() for _ in range(min(_TOGETHER, len(entries)))]
        for values, entry in zip(corpus.read(some), some, strict=True):
            room -= values.nbytes
            if room < 0:
                return
            yield values, entry


def _what(entry: Entry) -> str:
    return f"{entry.kind}, made by {entry.attack}"


def _more(entry: Entry) -> str:
    told = {"label": entry.label, "answer": entry.answer, "verdict": entry.verdict or None}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
