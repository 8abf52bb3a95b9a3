"""A table's file proposed from data: types, ranges, and rules that hold in all rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError, ThreatError
from ...config import TableConfig
from ...threat.tabular import Derived, Relation, Table, holds
from .._columns import Columns, text_columns
from .._tabular import table_of
from ._candidates import (
    LEAST,
    Candidate,
    Sample,
    floors,
    groups,
    in_words,
    orders,
    products,
    same,
    sayable,
    scaled,
    sum_of,
    sums,
)
from ._linear import Half, derived_halves, follows, halves
from ._profile import Column, need_target, profile
from ._random import random_rows

Array = NDArray[Any]

_SAMPLE, _CHUNK, _TRIED = 4000, 50_000, 4000


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a table's file could say of some data, for a person to confirm.

    columns: in the order of the data, those that are left out too; relations, derived: with what
    speaks for each; more: how many relations hold that are not named.
    """

    path: Path
    rows: int
    target: str | None
    columns: tuple[Column, ...]
    choices: tuple[tuple[str, ...], ...]
    derived: tuple[Candidate, ...]
    relations: tuple[Candidate, ...]
    more: int

    @property
    def left_out(self) -> tuple[Column, ...]:
        """The columns that cannot be told."""
        return tuple(one for one in self.columns if one.left_out is not None)

    @property
    def config(self) -> TableConfig:
        """What the file says."""
        made = {one.gives for one in self.derived}
        return TableConfig.model_validate(
            {
                "features": {
                    one.name: one.derived if one.name in made else one.told
                    for one in self.columns
                    if one.left_out is None
                },
                "choices": [{"columns": list(one)} for one in self.choices],
                "derived": {one.gives: one.value for one in self.derived},
                "relations": [one.text for one in self.relations],
            }
        )


def propose(path: str | Path, target: str | None = None, *, most: int = 40) -> Proposal:
    """What a table's file could say of a .parquet or .csv file; at most `most` relations.

    Rules are looked for in a sample and confirmed in all rows. One is left out that random rows
    within the ranges never break, that shuffled columns would keep too, or that follows from
    others. Raises DataError for a file that cannot be read or has no column that can be told.
    """
    columns = _opened(Path(path))
    names = list(columns)
    target = need_target(target, names)
    told = [profile(name, columns[name]) for name in names if name != target]
    if not any(one.left_out is None for one in told):
        raise DataError(f"{path} has no column that can be told: {_reasons(told)}")
    label = None if target is None else columns[target]
    start = Proposal(
        path=Path(path), rows=columns.rows, target=target, columns=tuple(told),
        choices=(), derived=(), relations=(), more=0,
    )  # fmt: skip
    rows = table_of(start.config).encode(columns)
    if label is not None:
        start = replace(start, columns=tuple(_leaks(told, rows, label)))
    return _ruled(replace(start, choices=tuple(_choices(start, rows))), rows, most)


def _opened(path: Path) -> Columns:
    if path.suffix.lower() != ".csv" or not path.is_file():
        return Columns(path)
    kinds = text_columns(path)
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    return Columns(path, texts=set(kinds) - set(numbers), numbers=numbers)


def _reasons(told: Iterable[Column]) -> str:
    return "; ".join(f"{one.name} {one.left_out}" for one in list(told)[:2]) or "it is the label"


def _leaks(told: list[Column], rows: Array, label: Array) -> Iterator[Column]:
    """With a word on columns that tell the label itself."""
    texts = label.astype(str) if label.dtype.kind == "O" else label
    _, classes = np.unique(texts, return_inverse=True)
    place = 0
    for one in told:
        if one.left_out is not None:
            yield one
            continue
        values = rows[:, place]
        place += 1
        seen, codes = np.unique(values, return_inverse=True)
        if 1 < len(seen) <= 50 and classes.max() > 0:
            counts = np.zeros((len(seen), classes.max() + 1))
            np.add.at(counts, (codes, classes), 1)
            if (counts > 0).sum(1).max() == 1:
                why = (*one.why, "tells the label in all rows: should the model see it?")
                one = replace(one, told={"change": "none", **one.told}, why=why)
        yield one


def _choices(start: Proposal, rows: Array) -> Iterator[tuple[str, ...]]:
    """Groups of columns of 0 and 1 of which exactly one is 1 in every row."""
    features = [one for one in start.columns if one.left_out is None]
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


def _ruled(start: Proposal, rows: Array, most: int) -> Proposal:
    """With the rules that hold in all rows."""
    features = [one for one in start.columns if one.left_out is None]
    chosen = {name for group in start.choices for name in group}
    places = [
        place
        for place, one in enumerate(features)
        if one.numeric and one.name not in chosen and sayable(one.name)
    ]
    picked = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))
    sample = Sample(
        names=tuple(features[place].name for place in places),
        values=rows[picked][:, places].astype(np.float64),
        steps=np.array([_grid(features[place]) for place in places]),
        rows=len(rows),
        dates=frozenset(one.name for one in features if "date" in one.told),
    )
    start, equal = _derived(start, sample, rows)
    # What another column tells by itself would say everything twice.
    twice = {one.gives for one in start.derived if len(one.needs) == 1}
    kept = [place for place, name in enumerate(sample.names) if name not in twice]
    return _related(start, sample.taken(kept), rows, equal, most)


def _grid(one: Column) -> float:
    return float(one.told.get("step") or one.told.get("integer", False))


def _derived(start: Proposal, sample: Sample, rows: Array) -> tuple[Proposal, list[Candidate]]:
    """With what can be derived, and the equations that cannot but hold within their rounding."""
    if len(sample.names) < 2:
        return start, []
    copies = list(same(sample))
    copied = {one.gives for one in copies}
    rest = [place for place, name in enumerate(sample.names) if name not in copied]
    once = sample.taken(rest)
    finest = dict(zip(sample.names, np.where(sample.steps > 0, sample.steps, 0.0), strict=True))
    found = [*scaled(once), *sums(once), *products(once), *floors(once)]
    # Of a = b * c and c = a / b that which gives the least round one, then the last one.
    found.sort(key=lambda one: (finest[_left(one, sample)], one.gives is None, len(one.needs)))
    given: list[Candidate] = []
    equal: list[Candidate] = []
    known: set[frozenset[str]] = set()
    table = table_of(start.config)
    for one in (*copies, *found):
        gives = _left(one, sample)
        together = one.needs | {gives}
        if together in known or any(other.gives == gives for other in given):
            continue
        if (
            one.gives is not None
            and not _circle(given, gives, one.needs)
            and _confirmed(Derived.read(gives, one.value, table.columns), rows, table)
        ):
            known.add(together)
            given.append(one)
            continue
        if _confirmed(Relation.read(one.text, table.columns), rows, table):
            known.add(together)
            equal.append(one)
    return replace(start, derived=tuple(given)), equal


def _left(one: Candidate, sample: Sample) -> str:
    told = one.text.partition(" == ")[0]
    return next(name for name in sample.names if in_words(name) == told)


def _circle(given: list[Candidate], name: str, needs: frozenset[str]) -> bool:
    """Whether a column would follow from itself."""
    by = {one.gives: one.needs for one in given}
    left, seen = list(needs), set()
    while left:
        one = left.pop()
        if one == name:
            return True
        if one not in seen:
            seen.add(one)
            left += by.get(one, ())
    return False


def _confirmed(rule: Relation | Derived, rows: Array, table: Table) -> bool:
    """Whether all rows (N, F) keep it."""
    index = table.capability.index
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]

        def column(name: str, part: Array = part) -> Array:
            return part[:, index[name]].astype(np.float64)

        if isinstance(rule, Derived):
            needed = np.stack([column(name) for name in (*sorted(rule.columns), rule.name)], 1)
            places = {name: n for n, name in enumerate((*sorted(rule.columns), rule.name))}
            if rule.broken(needed, places).any():
                return False
        elif not np.asarray(holds(rule.tree, column)).all():
            return False
    return True


def _related(
    start: Proposal, sample: Sample, rows: Array, equal: list[Candidate], most: int
) -> Proposal:
    """With relations: each says something that the ranges and the others do not."""
    table = table_of(start.config)
    capability, index = table.capability, table.capability.index
    labels = {one.name: one.labels for one in capability.features if one.labels is not None}
    ends = rows.min(0).astype(np.float64), rows.max(0).astype(np.float64)
    tried = random_rows(capability, _TRIED, ends)
    kept: list[Candidate] = []
    linear: list[list[Half]] = []
    always = derived_halves(capability)
    free = (np.where(_made(table), -np.inf, ends[0]), np.where(_made(table), np.inf, ends[1]))
    more = 0
    orderly = _orders(sample, rows, index)
    others = [*equal, *_grouped(sample), *orderly]
    others.sort(key=lambda one: ("==" not in one.text, -one.evidence))
    later = [*_positive(start, sample, rows, index, orderly), *_constant(start, rows, table)]
    later.sort(key=lambda one: -one.evidence)
    for one in (*others, *later):
        try:
            rule = Relation.read(one.text, table.columns, labels)
        except ThreatError:
            continue
        if rule.holds(tried, index).all():
            continue
        half = halves(rule.tree, dict(index))
        if half is not None:
            given = [one for told in linear for one in told]
            if follows(half, [*given, *always], *free):
                continue
        if not _confirmed(rule, rows, table):
            continue
        if len(kept) == most:
            more += 1
            continue
        kept.append(one)
        if half is not None:
            linear.append(half)
    kept = _needed(kept, table, labels, always, free)
    return replace(start, relations=tuple(kept), more=more)


def _needed(
    kept: list[Candidate], table: Table, labels: Any, always: list[Half], free: tuple[Array, Array]
) -> list[Candidate]:
    """Without those that follow from rules that came after them."""
    index = dict(table.capability.index)
    found = {
        one.text: halves(Relation.read(one.text, table.columns, labels).tree, index) for one in kept
    }
    left = list(kept)
    for one in reversed(kept):
        half = found[one.text]
        rest = [h for other in left if other is not one for h in found[other.text] or ()]
        if half is not None and follows(half, [*rest, *always], *free):
            left.remove(one)
    return left


def _made(table: Table) -> Array:
    names = {one.name for one in table.capability.derived}
    return np.array([name in names for name in table.columns])


def _orders(sample: Sample, rows: Array, index: dict[str, int]) -> list[Candidate]:
    """a <= b, without those that follow by way of a third column."""
    held, evidence = orders(sample)
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


def _grouped(sample: Sample) -> Iterator[Candidate]:
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


def _positive(
    start: Proposal, sample: Sample, rows: Array, index: dict[str, int], known: list[Candidate]
) -> Iterator[Candidate]:
    """a > 0 -> b > 0, where b is not at least a anyway."""
    whole = {one.name: bool(one.told.get("integer")) for one in start.columns}
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


def _closed(sample: Sample, known: list[Candidate]) -> Array:
    """(F, F): where column i is known to be at most column j."""
    place = {sample.told(n): n for n in range(len(sample.names))}
    found = np.zeros((len(place), len(place)), np.float32)
    for one in known:
        low, _, high = one.text.partition(" <= ")
        found[place[low], place[high]] = 1
    for _ in range(max(1, len(place).bit_length())):
        found = np.minimum(found + found @ found, 1)
    return found > 0


def _constant(start: Proposal, rows: Array, table: Table) -> Iterator[Candidate]:
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
