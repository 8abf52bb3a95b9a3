"""Which of the rules that were found a table's file says: those that hold, and none twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import ThreatError
from ...threat.tabular import Derived, Relation, Table, holds
from ._candidates import Candidate, Sample, in_words
from ._linear import Half, derived_halves, follows, halves
from ._random import random_rows

Array = NDArray[Any]

_CHUNK, _TRIED = 50_000, 4000


def equations(
    found: Iterable[Candidate], sample: Sample, rows: Array, table: Table
) -> tuple[list[Candidate], list[Candidate]]:
    """Of equations, in this order: those that give a column, and those that can only be checked.

    Each holds in all rows (N, F), and no column is given twice or by way of itself.
    """
    given: list[Candidate] = []
    equal: list[Candidate] = []
    known: set[frozenset[str]] = set()
    for one in found:
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
    return given, equal


def ranked(found: Iterable[Candidate], sample: Sample) -> list[Candidate]:
    """Equations in the order in which they are chosen."""
    step = dict(zip(sample.names, sample.steps.tolist(), strict=True))
    # Of a = b * c and c = a / b that which gives the least round one, then the last one.
    return sorted(
        found,
        key=lambda one: (step[_left(one, sample)], one.gives is None, len(one.needs)),
    )


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


def relations(
    found: Iterable[Candidate], rows: Array, table: Table, most: int
) -> tuple[list[Candidate], int]:
    """At most `most` rules, in this order, that hold in all rows (N, F), and how many more do.

    Each says something that the ranges and the others do not.
    """
    capability, index = table.capability, table.capability.index
    labels = {one.name: one.labels for one in capability.features if one.labels is not None}
    ends = rows.min(0).astype(np.float64), rows.max(0).astype(np.float64)
    tried = random_rows(capability, _TRIED, ends)
    kept: list[Candidate] = []
    linear: list[list[Half]] = []
    always = derived_halves(capability)
    names = {one.name for one in capability.derived}
    made = np.array([name in names for name in table.columns])
    free = np.where(made, -np.inf, ends[0]), np.where(made, np.inf, ends[1])
    more = 0
    for one in found:
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
    return _needed(kept, table, labels, always, free), more


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
