"""A table's file proposed from data: types, ranges, and rules that hold in all rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError
from ...config import TableConfig
from .._columns import Columns, kinds_of
from .._tabular import table_of
from ._candidates import Candidate, Sample, floors, products, same, sayable, scaled, sums
from ._choices import choices
from ._choose import equations, ranked, relations
from ._orders import constant, grouped, orders, positive
from ._profile import Column, need_target, profile

Array = NDArray[Any]

_SAMPLE = 4000


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
    features = [one for one in start.columns if one.left_out is None]
    return _ruled(replace(start, choices=tuple(choices(features, rows))), rows, most)


def _opened(path: Path) -> Columns:
    if path.suffix.lower() != ".csv" or not path.is_file():
        return Columns(path)
    kinds = kinds_of(path)
    numbers = [name for name, kind in kinds.items() if kind in ("integer", "number")]
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


def _ruled(start: Proposal, rows: Array, most: int) -> Proposal:
    """With the rules that hold in all rows."""
    sample = _sample(start, rows)
    copies = list(same(sample))
    copied = {one.gives for one in copies}
    once = sample.without(copied)
    found = ranked(chain(scaled(once), sums(once), products(once), floors(once)), sample)
    given, equal = equations([*copies, *found], sample, rows, table_of(start.config))
    start = replace(start, derived=tuple(given))
    # What another column tells by itself would say everything twice.
    sample = sample.without({one.gives for one in given if len(one.needs) == 1})
    table = table_of(start.config)
    ordered = orders(sample, rows, table.capability.index)
    others = [*equal, *grouped(sample), *ordered]
    others.sort(key=lambda one: ("==" not in one.text, -one.evidence))
    later = [*positive(sample, rows, table, ordered), *constant(rows, table)]
    later.sort(key=lambda one: -one.evidence)
    kept, more = relations(chain(others, later), rows, table, most)
    return replace(start, relations=tuple(kept), more=more)


def _sample(start: Proposal, rows: Array) -> Sample:
    """Rows spread over all, of the columns that can be compared."""
    features = [one for one in start.columns if one.left_out is None]
    chosen = {name for group in start.choices for name in group}
    places = [
        place
        for place, one in enumerate(features)
        if one.numeric and one.name not in chosen and sayable(one.name)
    ]
    picked = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))
    return Sample(
        names=tuple(features[place].name for place in places),
        values=rows[picked][:, places].astype(np.float64),
        steps=np.array([_grid(features[place]) for place in places]),
        rows=len(rows),
        dates=frozenset(one.name for one in features if "date" in one.told),
    )


def _grid(one: Column) -> float:
    return float(one.told.get("step") or one.told.get("integer", False))
