"""Tables with a file of their own that says what the columns are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, ThreatError
from ..config import DataConfig, FeatureConfig, TableConfig
from ..config import load_table as load_table_config
from ..threat.tabular import Capability, Derived, Feature, OneHot, Relation, Table
from ._columns import Columns
from ._dataset import Dataset, encode, from_arrays
from ._prepare import need


def load_table(path: str | Path) -> Table:
    """The table in a YAML file; raises ConfigError with the key and the fix."""
    return table_of(load_table_config(path), str(path))


def table_of(spec: TableConfig, where: str = "table") -> Table:
    """The table that a file describes; raises ThreatError for rules that make no sense."""
    names = list(spec.features)
    labels = {name: one.values for name, one in spec.features.items() if one.values is not None}
    derived = set(spec.derived)
    try:
        capability = Capability(
            features=tuple(
                _feature(name, one, derived=name in derived) for name, one in spec.features.items()
            ),
            choices=tuple(
                OneHot(columns=tuple(one.columns), cost=one.cost) for one in spec.choices
            ),
            derived=tuple(
                Derived.read(name, text, names, labels) for name, text in spec.derived.items()
            ),
            relations=tuple(Relation.read(text, names, labels) for text in spec.relations),
            most_changed=spec.most_changed,
            most_cost=spec.most_cost,
        )
        return Table(capability=capability, stake=spec.stake, currency=spec.currency)
    except ThreatError as error:
        raise ThreatError(f"{where}: {error}") from None


def _feature(name: str, spec: FeatureConfig, *, derived: bool) -> Feature:
    if spec.values is not None:
        place = {label: float(code) for code, label in enumerate(spec.values)}
        return Feature(
            name=name,
            change=spec.change,
            integer=True,
            values=tuple(place.values()),
            labels=tuple(spec.values),
            allow={
                place[before]: tuple(place[one] for one in after)
                for before, after in (spec.allow or {}).items()
            },
            fixed=spec.fixed,
        )
    open_ended = spec.lower is None or spec.upper is None
    if open_ended and spec.change != "none" and not derived:
        missing = "lower" if spec.lower is None else "upper"
        raise ThreatError(
            f"feature {name!r} can be changed and has no {missing}; give its range, or change: none"
        )
    return Feature(
        name=name,
        change=spec.change,
        # As rows have them: 0.1 in single precision is above 0.1.
        lower=-np.inf if spec.lower is None else float(np.float32(spec.lower)),
        upper=np.inf if spec.upper is None else float(np.float32(spec.upper)),
        integer=spec.integer or spec.date,
        step=spec.step,
        most=spec.most,
        share=spec.share,
        cost=spec.cost,
        fixed=spec.fixed,
        date=spec.date,
    )


def load_tabular(path: Path, spec: DataConfig, root: str | Path = ".") -> Dataset:
    """Rows (N, F) of a parquet or csv file, with the columns that data.table tells."""
    assert spec.table is not None
    table = load_table(Path(root) / Path(spec.table).expanduser())
    columns = columns_of(path, table)
    for name in (spec.y, spec.group):
        if name is not None:
            need(name, columns, what="column", where=columns.path)
    # Class indices do not depend on the limit.
    labels, classes = encode(_whole(columns, spec.y), tuple(spec.classes) if spec.classes else None)
    columns = columns.head(None if spec.only else spec.limit)
    return from_arrays(
        table.encode(columns),
        labels[: columns.rows],
        name=columns.path.stem,
        source=spec.source or str(spec.path),
        licence=spec.licence or "unknown",
        classes=classes,
        features=table.columns,
        groups=None if spec.group is None else _whole(columns, spec.group),
        table=table,
    )


def _whole(columns: Columns, name: str) -> NDArray[Any]:
    """A column of labels or groups, none of which is an empty text."""
    found = columns[name]
    if found.dtype.kind == "O":
        empty = np.flatnonzero(found == "")
        if len(empty):
            raise DataError(
                f"column {name!r} is missing in row {empty[0]} and {len(empty) - 1} more; fill it "
                "in, or drop those rows"
            )
    return found


def columns_of(path: str | Path, table: Table, *, limit: int | None = None) -> Columns:
    """The columns of a .parquet or .csv file as a table knows them: 007 is a text where it says so.

    limit: only the first rows.
    """
    texts = {one.name for one in table.capability.features if one.labels is not None or one.date}
    numbers = set(table.columns) - texts
    return Columns(path, texts=texts, numbers=numbers, limit=limit)
