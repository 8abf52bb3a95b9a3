"""Columns of which exactly one is 1 in every row: one choice, told in several columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._candidates import groups
from ._profile import Column

Array = NDArray[Any]

_SAMPLE = 4000


def choices(features: Sequence[Column], rows: Array) -> Iterator[tuple[str, ...]]:
    """Groups of columns of 0 and 1 of which exactly one is 1 in every row (N, F)."""
    flags = [
        place
        for place, one in enumerate(features)
        if one.numeric and one.told.get("integer") and np.isin(rows[:, place], (0, 1)).all()
    ]
    names = [one.name for one in features]
    taken: set[int] = set()
    named = [[place for place in group if place in flags] for _, group in groups(names)]
    for group in chain(named, _runs(rows[:_SAMPLE], flags)):
        if len(group) < 2 or not taken.isdisjoint(group):
            continue
        if (rows[:_SAMPLE, group].sum(1) == 1).all() and (rows[:, group].sum(1) == 1).all():
            taken |= set(group)
            yield tuple(names[place] for place in group)


def _runs(rows: Array, flags: list[int]) -> Iterator[list[int]]:
    """Columns beside each other of which exactly one is 1 in every row, of those that are flags."""
    if not flags:
        return
    for run in np.split(np.array(flags), np.flatnonzero(np.diff(flags) > 1) + 1):
        ones = rows[:, run] > 0
        # The first 1 at or behind each column, and how many there are before it.
        behind = np.where(ones, np.arange(len(run)), len(run))
        behind = np.minimum.accumulate(behind[:, ::-1], 1)[:, ::-1].max(0)
        before = np.concatenate((np.zeros((len(rows), 1), int), ones.cumsum(1)), 1)
        begin = 0
        while begin < len(run):
            end = int(behind[begin]) + 1
            if end > len(run) or (before[:, end] - before[:, begin]).max() > 1:
                begin += 1
                continue
            while end < len(run) and not ones[:, end].any():
                end += 1
            yield run[begin:end].tolist()
            begin = end
