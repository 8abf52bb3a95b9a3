"""Tables: parquet and csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, listed
from ._columns import Columns
from ._dataset import Dataset
from ._prepare import prepare

Array = NDArray[Any]


def load_parquet(
    path: str | Path,
    target: str,
    features: Sequence[str] | None = None,
    *,
    scale: float = 1.0,
    limit: int | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Dataset:
    """Rows (N, F) of a parquet file; features: all columns but target and group."""
    return _dataset(
        Columns.typed(path, kind="parquet"),
        target,
        features,
        scale=scale,
        limit=limit,
        group=group,
        classes=classes,
        source=source,
        licence=licence,
    )


def load_csv(
    path: str | Path,
    target: str,
    features: Sequence[str] | None = None,
    *,
    scale: float = 1.0,
    limit: int | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Dataset:
    """Rows (N, F) of a csv file with a header line and commas; as load_parquet otherwise."""
    return _dataset(
        # Groups are names: a float would take long account numbers for one another.
        Columns.typed(path, texts=() if group is None else [group], kind="csv"),
        target,
        features,
        scale=scale,
        limit=limit,
        group=group,
        classes=classes,
        source=source,
        licence=licence,
    )


def read_table(path: str | Path) -> dict[str, Array]:
    """The columns (N,) of a .parquet or .csv file by name; missing numbers are NaN."""
    return dict(Columns.typed(path))


def _choose(
    columns: Columns, target: str, features: Sequence[str] | None, group: str | None
) -> list[str]:
    """The feature columns, every name checked."""
    where = columns.path
    columns.need(target, *(() if group is None else (group,)), *(features or ()))
    if features is None:
        features = [c for c in columns if c not in (target, group)]
        unnamed = [c for c in features if not c or c.startswith("Unnamed: ")]
        if unnamed:
            raise DataError(
                f"{where.name} has a column without a name ({unnamed[0]!r}), often a row number; "
                "write the file without its index, or list the feature columns as features"
            )
    if not features:
        raise DataError(f"{where.name} has no feature columns; list at least one as features")
    if target in features:
        raise DataError(f"features name the label {target!r} itself; take it out")
    if len(set(features)) < len(features):
        twice = next(c for c in features if list(features).count(c) > 1)
        raise DataError(f"column {twice!r} is there twice among the features; name it once")
    return list(features)


def _dataset(
    columns: Columns,
    target: str,
    features: Sequence[str] | None,
    *,
    scale: float,
    limit: int | None,
    group: str | None,
    classes: Sequence[str] | None,
    source: str | None,
    licence: str | None,
) -> Dataset:
    chosen = _choose(columns, target, features, group)
    found = {name: columns[name] for name in chosen}
    texts = [name for name, one in found.items() if one.dtype.kind not in "biuf"]
    if texts:
        raise DataError(
            f"{columns.path.name}: feature columns {listed(texts)} are not numeric; "
            "encode them as numbers, or list only the numeric columns as features"
        )
    return prepare(
        np.stack([one.astype(np.float64) for one in found.values()], 1),
        _names(columns[target]),
        name=columns.path.stem,
        source=source or str(columns.path),
        licence=licence or "unknown",
        scale=scale,
        limit=limit,
        classes=classes,
        features=chosen,
        groups=None if group is None else _names(columns[group]),
    )


def _names(column: Array) -> Array:
    """Labels or groups (N,): dates as texts, and None for an empty text."""
    if column.dtype.kind not in "MO":
        return column
    if column.dtype.kind == "O":
        found, missing = column.copy(), np.asarray(column == "")
    else:
        missing, days = np.isnat(column), column.astype("datetime64[D]")
        whole = bool(((days == column) | missing).all())
        found = (days if whole else column).astype(str).astype(object)
    found[missing] = None
    return found
