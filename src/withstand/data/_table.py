"""Tables: parquet and csv."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, listed, one_line
from ._dataset import Dataset
from ._prepare import existing, need, prepare

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
    path = existing(path)
    import_extra("pandas")
    parquet = import_extra("pyarrow.parquet")
    try:
        schema = parquet.read_schema(path)
        stored = (schema.pandas_metadata or {}).get("index_columns", [])
        index = [name for name in stored if isinstance(name, str)]
        chosen = _choose(schema.names, target, features, group, index=index, where=path)
        extra = [group] if group is not None and group not in (*chosen, target) else []
        table = parquet.read_table(path, columns=[*chosen, target, *extra])
        # With its metadata a stored index would come back as no column, even one that was listed.
        frame = table.to_pandas(ignore_metadata=True)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
        raise DataError(
            f"{path} cannot be read as parquet ({one_line(error, 80)}); write it again"
        ) from None
    return _dataset(
        frame,
        target,
        chosen,
        path=path,
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
    path = existing(path)
    frame = _read_csv(path)
    chosen = _choose([str(c) for c in frame.columns], target, features, group, where=path)
    return _dataset(
        frame,
        target,
        chosen,
        path=path,
        scale=scale,
        limit=limit,
        group=group,
        classes=classes,
        source=source,
        licence=licence,
    )


def read_table(path: str | Path) -> dict[str, Array]:
    """The columns (N,) of a .parquet or .csv file by name; missing numbers are NaN."""
    path = existing(path)
    if path.suffix.lower() == ".parquet":
        pandas = import_extra("pandas")
        import_extra("pyarrow.parquet")
        try:
            frame = pandas.read_parquet(path)
        except (OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path} cannot be read as parquet ({one_line(error, 80)}); write it again"
            ) from None
    else:
        frame = _read_csv(path)
    if not len(frame):
        raise DataError(f"{path.name} has no rows; give at least one below the header")
    return {str(name): _numbers(frame[name]) for name in frame.columns}


def _numbers(column: Any) -> Array:
    """As `_values`, but nullable numbers stay numbers."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    kind = column.dtype
    if isinstance(kind, np.dtype) or not is_numeric_dtype(kind) or is_bool_dtype(kind):
        return _values(column)
    if is_integer_dtype(kind) and not column.isna().any():
        return np.asarray(column.to_numpy(dtype=np.int64))
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _read_csv(path: Path) -> Any:
    pandas = import_extra("pandas")
    try:
        with warnings.catch_warnings():
            # Without an index column pandas drops surplus values, and only warns.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            # Columns are typed as a whole, or a mixed one would change type from chunk to chunk.
            return pandas.read_csv(path, low_memory=False, index_col=False)
    except pandas.errors.ParserWarning:
        raise DataError(
            f"{path} has rows with more values than its header line; write it again"
        ) from None
    except (OSError, ValueError) as error:  # pandas' parser errors and UnicodeDecodeError are these
        raise DataError(
            f"{path} cannot be read as csv ({one_line(error, 80)}); "
            "write it in UTF-8 with a header line and commas"
        ) from None


def import_extra(name: str) -> Any:
    """A module of an extra that may not be installed; raises DataError with the fix."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(
            f"tables need {name.partition('.')[0]}, which is not installed; "
            "run pip install 'withstand[tabular]'"
        ) from None


def _choose(
    columns: list[str],
    target: str,
    features: Sequence[str] | None,
    group: str | None,
    *,
    index: Sequence[str] = (),
    where: Path,
) -> list[str]:
    """The feature columns, every name checked."""
    for name in (target, *(() if group is None else (group,)), *(features or ())):
        need(name, columns, what="column", where=where)
    if features is None:
        features = [c for c in columns if c not in (target, group, *index)]
        unnamed = [c for c in features if c.startswith("Unnamed: ")]
        if unnamed:
            raise DataError(
                f"{where.name} has a column without a name ({unnamed[0]}), often a row number; "
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
    frame: Any,
    target: str,
    features: list[str],
    *,
    path: Path,
    scale: float,
    limit: int | None,
    group: str | None,
    classes: Sequence[str] | None,
    source: str | None,
    licence: str | None,
) -> Dataset:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    if not len(frame):
        raise DataError(f"{path.name} has no rows; give at least one below the header")
    texts = [
        c
        for c in features
        if not (is_numeric_dtype(frame[c].dtype) or is_bool_dtype(frame[c].dtype))
        or is_complex_dtype(frame[c].dtype)
    ]
    if texts:
        raise DataError(
            f"{path.name}: feature columns {listed(texts)} are not numeric; "
            "encode them as numbers, or list only the numeric columns as features"
        )
    x = frame[features].to_numpy(dtype=np.float64, na_value=np.nan)
    return prepare(
        x,
        _values(frame[target]),
        name=path.stem,
        source=source or str(path),
        licence=licence or "unknown",
        scale=scale,
        limit=limit,
        classes=classes,
        features=features,
        groups=None if group is None else _values(frame[group]),
    )


def _values(column: Any) -> Array:
    """A column as numpy has it; text, categories and nullable types become objects."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return np.asarray(column)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "mM":
        return np.asarray(column.astype(str))
    values = column.astype(object)
    return np.asarray(values.where(values.notna(), None), dtype=object)
