"""Orders and implications between columns that all rows keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Table
from ._candidates import LEAST, Candidate, Sample, groups, in_words, sayable, sum_of

Array = NDArray[Any]

_CHUNK = 50_000


def orders(sample: Sample, rows: Array, index: Mapping[str, int]) -> list[Candidate]:
    """a <= b in all rows (N, F), without those that follow by way of a third column."""
    held, evidence = _at_most(sample)
    held &= evidence >= LEAST
    pairs = np.argwhere(held)
    for one, other in pairs.tolist():
        low, high = (rows[:, index[sample.names[place]]] for place in (one, other))
        held[one, other] = bool((low <= high).all())
    between = held.astype(np.float32) @ held.astype(np.float32) > 0
    return [
        Candidate(
            text=f"{sample.told(one)} <= {sample.told(other)}",
            evidence=float(evidence[one, other]),
            needs=frozenset({sample.names[one], sample.names[other]}),
        )
        for one, other in np.argwhere(held & ~between).tolist()
    ]


def _at_most(sample: Sample) -> tuple[Array, Array]:
    """(F, F): where column i is at most column j in all rows, and the rows shuffling breaks."""
    count = len(sample.names)
    holds, evidence = np.zeros((count, count), bool), np.zeros((count, count))
    for place in range(count):
        one = sample.values[:, place : place + 1]
        holds[place] = (one <= sample.values).all(0)
        evidence[place] = (one > sample.shuffled).mean(0) * sample.rows
    np.fill_diagonal(holds, False)
    return holds, evidence


def grouped(sample: Sample) -> Iterator[Candidate]:
    """Sums of columns that are named alike, at most another column, or always the same."""
    for prefix, group in groups(sample.names):
        total = sample.values[:, group].sum(1)
        mixed = np.stack([sample.values[np.roll(np.arange(len(total)), n * 7 + 1), place]
                          for n, place in enumerate(group)], 1).sum(1)  # fmt: skip
        text = sum_of(sample, group, prefix)
        if np.ptp(total) <= 1e-6 * max(abs(total[0]), 1) and np.ptp(mixed) > 1e-3:
            broken = float((np.abs(mixed - total[0]) > 1e-4).mean() * sample.rows)
            size = 1e-5 * max(abs(float(total[0])), 1)
            if broken >= LEAST:
                yield Candidate(text=f"{text} == {total[0]:.7g} ~ {size:.2g}", evidence=broken)
        for place in range(len(sample.names)):
            if place in group or not (total <= sample.values[:, place]).all():
                continue
            broken = float((total > sample.shuffled[:, place]).mean() * sample.rows)
            if broken >= LEAST and len(group) >= 3:
                yield Candidate(text=f"{text} <= {sample.told(place)}", evidence=broken)


def positive(
    sample: Sample, rows: Array, table: Table, known: Sequence[Candidate]
) -> Iterator[Candidate]:
    """a > 0 -> b > 0 in all rows (N, F), where b is not known to be at least a anyway."""
    index = table.capability.index
    whole = {one.name: one.integer for one in table.capability.features}
    zeros = (sample.values == 0).mean(0)
    places = np.flatnonzero((sample.values.min(0) == 0) & (zeros > 0) & (zeros < 1))
    at = [index[sample.names[place]] for place in places]
    both = np.zeros((len(at), len(at)))
    for first in range(0, len(rows), _CHUNK):
        some = (rows[first : first + _CHUNK][:, at] > 0).astype(np.float32)
        both += some.T @ (1 - some)
    count = (rows[:, at] > 0).sum(0)
    evidence = count[:, None] * (1 - count[None, :] / len(rows))
    held = (both == 0) & (evidence >= LEAST) & (count[:, None] >= LEAST)
    np.fill_diagonal(held, False)
    ordered = _closed(sample, known)[np.ix_(places, places)]
    held &= ~ordered
    between = held.astype(np.float32) @ (held | ordered).astype(np.float32) > 0
    between |= ordered.astype(np.float32) @ held.astype(np.float32) > 0
    # Of two that imply each other neither goes by way of the other.
    between &= ~(held & held.T)
    for one, other in np.argwhere(held & ~between).tolist():
        a, b = (sample.names[places[place]] for place in (one, other))
        then = f"{in_words(b)} >= 1" if whole[b] else f"{in_words(b)} > 0"
        yield Candidate(
            text=f"{in_words(a)} > 0 -> {then}",
            evidence=float(evidence[one, other]),
            why=f"{int(count[one]):,} rows have {a} > 0",
        )


def _closed(sample: Sample, known: Sequence[Candidate]) -> Array:
    """(F, F): where column i is known to be at most column j."""
    place = {sample.told(n): n for n in range(len(sample.names))}
    found = np.zeros((len(place), len(place)), np.float32)
    for one in known:
        low, _, high = one.text.partition(" <= ")
        found[place[low], place[high]] = 1
    for _ in range(max(1, len(place).bit_length())):
        found = np.minimum(found + found @ found, 1)
    return found > 0


def constant(rows: Array, table: Table) -> Iterator[Candidate]:
    """category == 'x' -> b == 3: what is the same in all rows of a category, and not in others."""
    features = table.capability.features
    made = {one.name for one in table.capability.derived}
    for place, one in enumerate(features):
        if one.labels is None or len(one.labels) < 2 or not sayable(one.name):
            continue
        for code, label in enumerate(one.labels):
            mine = rows[:, place] == code
            count = int(mine.sum())
            if count < LEAST:
                continue
            part = rows[mine]
            same_there = (part == part[0]).all(0)
            share = (rows == part[0]).mean(0)
            for other in np.flatnonzero(same_there & (count * (1 - share) >= LEAST)).tolist():
                that = features[other]
                if other == place or that.name in made or not sayable(that.name):
                    continue
                if that.labels is not None:
                    told = repr(that.labels[int(part[0, other])])
                else:
                    told = _digits(part[0, other])
                yield Candidate(
                    text=f"{in_words(one.name)} == {label!r} -> {in_words(that.name)} == {told}",
                    evidence=float(count * (1 - share[other])),
                    why=f"{count:,} rows",
                )


def _digits(value: np.float32) -> str:
    whole = float(value).is_integer()
    return str(int(value)) if whole else f"{float(value):.9g} ~ {abs(float(value)) * 1e-6:.1g}"
