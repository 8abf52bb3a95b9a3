"""Rules between columns that a sample of rows keeps, and that shuffled columns would not keep."""

from __future__ import annotations

import keyword
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_PROBES = 64
# What so many rows of shuffled columns would break, and no real row breaks, is no accident.
LEAST = 20.0
# And in so many of the rows it would be another value.
_MIXED = 0.5
_WORDS = {
    *keyword.kwlist, "abs", "log", "exp", "sqrt", "floor", "ceil", "round", "min", "max", "sum",
    "where", "date",
}  # fmt: skip
_SINGLE = 2.0**-24
_LAST_DAY = 2_932_896
_UNITS = (7, 10, 12, 24, 30, 60, 100, 365, 1000, 3600, 86400)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A rule in text. evidence: how many rows would break it if the columns were shuffled.

    gives: the column that it gives, where it can be derived; follows: the columns it needs then.
    """

    text: str
    evidence: float
    gives: str | None = None
    value: str = ""
    needs: frozenset[str] = frozenset()
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some rows (n, F), float64, of columns that can be compared; steps (F,): 0 where none.

    rows: how many rows there are in all; dates: which of the columns are such.
    """

    names: tuple[str, ...]
    values: Array
    steps: Array
    rows: int
    dates: frozenset[str] = frozenset()
    shuffled: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        order = np.random.default_rng(0).permutation(len(self.values))
        object.__setattr__(self, "shuffled", self.values[order])

    def without(self, names: Container[str | None]) -> Sample:
        """All but some of the columns."""
        places = [place for place, name in enumerate(self.names) if name not in names]
        return replace(
            self,
            names=tuple(self.names[place] for place in places),
            values=self.values[:, places],
            steps=self.steps[places],
        )

    @cached_property
    def common(self) -> Array:
        """The columns (c,) that are not 0 too often for shuffled rows to break what gives them."""
        return np.flatnonzero((self.values != 0).mean(0) >= _MIXED / 2)

    def told(self, place: int) -> str:
        """A column as expressions name it."""
        return in_words(self.names[place])


def in_words(name: str) -> str:
    """A column's name as expressions have it, in backquotes where it is no plain word."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in _WORDS
    return name if plain else f"`{name}`"


def sayable(name: str) -> bool:
    """Whether expressions can name a column."""
    return "`" not in name and "\n" not in name


def same(sample: Sample) -> Iterator[Candidate]:
    """Columns that are always equal, the later one given by the first."""
    taken: set[int] = set()
    for first in range(len(sample.names)):
        if first in taken:
            continue
        equal = (sample.values == sample.values[:, first : first + 1]).all(0)
        for place in np.flatnonzero(equal).tolist():
            if place <= first or place in taken:
                continue
            evidence = _broken(sample, sample.values[:, first] != sample.shuffled[:, place])
            if evidence >= LEAST:
                taken.add(place)
                yield Candidate(
                    text=f"{sample.told(place)} == {sample.told(first)}",
                    evidence=evidence,
                    gives=sample.names[place],
                    value=sample.told(first),
                    needs=frozenset({sample.names[first]}),
                )


def scaled(sample: Sample) -> Iterator[Candidate]:
    """Columns that are another one in other units: k times it plus a constant."""
    values = sample.values
    for one in range(len(sample.names)):
        # Any two columns of two values are lines of each other.
        if len(np.unique(values[:, one])) < 5:
            continue
        low, high = values[:, one].argmin(), values[:, one].argmax()
        factors = (values[high] - values[low]) / (values[high, one] - values[low, one])
        for place in range(one + 1, len(sample.names)):
            factor = float(f"{factors[place]:.6g}")
            if not factor:
                continue
            rest = float(f"{np.median(values[:, place] - factor * values[:, one]):.7g}")
            wanted = factor * values[:, one] + rest
            if np.abs(wanted - values[:, place]).max() <= 1e-4 * np.abs(wanted).max():
                dated = (sample.names[place] in sample.dates) != (sample.names[one] in sample.dates)
                told = _line(factor, sample.told(one), rest, dated=dated)
                yield from _given(sample, wanted, place, [one], told)


def _line(factor: float, name: str, rest: float, *, dated: bool) -> str:
    size = f"{abs(rest):.8g}"
    if dated and 0 < rest < _LAST_DAY and rest.is_integer():
        size = f"date('{np.datetime64(int(rest), 'D')}')"
    if factor == -1 and rest > 0:
        return f"{size} - {name}"
    times = "" if factor == 1 else f"{factor:.7g} * "
    return f"{times}{name} {'-' if rest < 0 else '+'} {size}" if rest else f"{times}{name}"


def sums(sample: Sample) -> Iterator[Candidate]:
    """Columns that are the sum of two others, of columns side by side, or of a group by name."""
    probes = sample.values[_probes(sample)]
    count = len(sample.names)
    for one in range(count):
        totals = probes[:, one : one + 1] + probes[:, one:]
        for other, place in _hits(sample, probes, totals):
            if place not in (one, one + other):
                yield from _sum(sample, [one, one + other], place)
    running = np.concatenate((np.zeros((len(probes), 1)), probes.cumsum(1)), 1)
    for start in range(count):
        totals = running[:, start + 3 :] - running[:, start : start + 1]
        for length, place in _hits(sample, probes, totals):
            parts = list(range(start, start + 3 + length))
            if place not in parts:
                yield from _sum(sample, parts, place)
    for prefix, group in groups(sample.names):
        for leave in (None, *group):
            parts = [place for place in group if place != leave]
            if len(parts) >= 3:
                totals = probes[:, parts].sum(1, keepdims=True)
                for _, place in _hits(sample, probes, totals):
                    if place not in parts:
                        yield from _sum(sample, parts, place, prefix)


def _sum(
    sample: Sample, parts: list[int], place: int, prefix: str | None = None
) -> Iterator[Candidate]:
    values = sample.values[:, parts]
    # A part that is nearly always 0 is a part of nothing.
    if ((values != 0).sum(0) * sample.rows / len(values)).min() < LEAST:
        return
    yield from _given(sample, values.sum(1), place, parts, sum_of(sample, parts, prefix))


def sum_of(sample: Sample, parts: Sequence[int], prefix: str | None = None) -> str:
    """The sum of some columns in words."""
    if len(parts) == 2:
        return " + ".join(sample.told(part) for part in parts)
    if prefix is not None:
        begins = [place for place, name in enumerate(sample.names) if name.startswith(prefix)]
        if begins == list(parts) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
            return f"sum({prefix}*)"
    return f"sum({', '.join(sample.told(part) for part in parts)})"


def groups(names: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Columns by how their names begin: up to the last underscore, or to a number at the end."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        head = re.fullmatch(r"(.*[A-Za-z_.\- ])\d+", name) or re.fullmatch(r"(.*[_.\- ]).+", name)
        if head:
            found.setdefault(head[1], []).append(place)
    for prefix, places in found.items():
        if len(places) >= 2:
            yield prefix, places


def products(sample: Sample) -> Iterator[Candidate]:
    """Columns that are the product of two others, or their ratio."""
    values = sample.values
    distinct = np.array([len(np.unique(one)) for one in values.T])
    # Products of flags are other rules.
    usable = np.flatnonzero(distinct >= 5)
    probes = values[_probes(sample)]
    for one in usable.tolist():
        others = usable[usable >= one]
        for hit, place in _hits(sample, probes, probes[:, one : one + 1] * probes[:, others]):
            other = int(others[hit])
            if place not in (one, other) and distinct[place] >= 10:
                told = f"{sample.told(one)} * {sample.told(other)}"
                yield from _given(
                    sample, values[:, one] * values[:, other], place, [one, other], told
                )
        for least in (None, 1.0):
            low = probes[:, usable]
            if least is not None:
                low = np.maximum(low, least)
            with np.errstate(all="ignore"):
                ratios = probes[:, one : one + 1] / low
            for hit, place in _hits(sample, probes, ratios):
                other = int(usable[hit])
                if place in (one, other) or one == other or distinct[place] < 10:
                    continue
                if least is not None and values[:, other].min() >= least:
                    continue
                below = values[:, other] if least is None else np.maximum(values[:, other], least)
                if len(np.unique(below)) < 5:
                    continue
                name = sample.told(other) if least is None else f"max({sample.told(other)}, 1)"
                with np.errstate(all="ignore"):
                    ratio = values[:, one] / below
                yield from _given(
                    sample, ratio, place, [one, other], f"{sample.told(one)} / {name}"
                )


def floors(sample: Sample) -> Iterator[Candidate]:
    """Columns that are another one in larger units, such as days of seconds."""
    probes = sample.values[_probes(sample)]
    for one in range(len(sample.names)):
        size = np.ptp(sample.values[:, one])
        units = [unit for unit in _UNITS if 10 * unit < size]
        parts = np.floor(probes[:, one : one + 1] / np.array(units))
        for hit, place in _hits(sample, probes, parts) if units else ():
            if place != one:
                wanted = np.floor(sample.values[:, one] / units[hit])
                told = f"floor({sample.told(one)} / {units[hit]:g})"
                yield from _given(sample, wanted, place, [one], told)


def _given(
    sample: Sample, wanted: Array, place: int, parts: list[int], text: str
) -> Iterator[Candidate]:
    """That a column is a value, if it is in all rows of the sample, and would not be by chance."""
    found, half = sample.values[:, place], sample.steps[place] / 2
    with np.errstate(all="ignore"):
        noise = 8 * _SINGLE * np.maximum(np.abs(sample.values[:, parts]).max(1), np.abs(wanted))
        exact = np.abs(found - wanted) <= 1e-5 * np.maximum(np.abs(wanted), 1)
        near = np.abs(found - wanted) <= half * 1.0001 + noise
        mixed = np.abs(sample.shuffled[:, place] - wanted) > np.maximum(half, 1e-5) + noise
    evidence = _broken(sample, mixed)
    if not (exact.all() or near.all()) or mixed.mean() < _MIXED or evidence < LEAST:
        return
    most = half * 1.0001 + 4 * float(noise.max())
    size = "" if exact.all() and not half else f" ~ {most:.2g}"
    yield Candidate(
        text=f"{sample.told(place)} == {text}{size}",
        evidence=evidence,
        gives=sample.names[place] if exact.all() else None,
        value=text,
        needs=frozenset(sample.names[part] for part in parts),
    )


def _hits(sample: Sample, probes: Array, found: Array) -> Iterator[tuple[int, int]]:
    """Which of some values (R, K) may be which column, by probes (R, F) of them: (k, column)."""
    places = sample.common
    room, probes = sample.steps[places] / 2 * 1.001 + 1e-9, probes[:, places]
    with np.errstate(all="ignore"):
        # The first few rows rule nearly all of them out.
        few = found[:6, :, None]
        near = np.abs(few - probes[:6, None, :]) <= room + 1e-5 * np.maximum(np.abs(few), 1)
        pairs = np.argwhere(near.all(0))
        gap = np.abs(found[:, pairs[:, 0]] - probes[:, pairs[:, 1]])
        most = room[pairs[:, 1]] + 1e-5 * np.maximum(np.abs(found[:, pairs[:, 0]]), 1)
        pairs = pairs[(gap <= most).all(0)]
    yield from ((int(k), int(places[place])) for k, place in pairs)


def _probes(sample: Sample) -> Array:
    """Rows in which as little as can be is 0, since 0 + 0 is 0 whatever the columns."""
    filled = (sample.values != 0).sum(1)
    return np.argsort(-filled, kind="stable")[:_PROBES]


def _broken(sample: Sample, rows: Array) -> float:
    return float(rows.mean() * sample.rows)
