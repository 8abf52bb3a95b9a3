"""Reading samples from files: arrays, and tables of mixed types."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError, did_you_mean, listed
from ...data import read_npz, read_table
from ._result import Kind

Array = NDArray[Any]


class Samples(NamedTuple):
    """Two samples in the form that `calibrate_pairs` and `calibrate_samples` take.

    lone: columns that only one of both tables has, which are not compared.
    """

    first: Array
    second: Array
    names: tuple[str, ...] | None
    kinds: tuple[Kind, ...] | None
    lone: tuple[str, ...] = ()


def read_pairs(path: str | Path, *, scale: float = 1.0) -> Samples:
    """The arrays x and x_adv of an .npz file, such as an evaluation's adversarial.npz."""
    x, x_adv = read_npz(path, ["x", "x_adv"])
    return _scaled(Samples(x, x_adv, None, None), scale)


def read_samples(
    first: str | Path,
    second: str | Path,
    *,
    scale: float = 1.0,
    columns: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
) -> Samples:
    """Two files of one form: the array x of .npz files, or the columns of .csv or .parquet tables.

    columns: those to compare, all that both tables have if empty. Text and true/false columns are
    categories, and so are those named; whole numbers are integers. scale: arrays and continuous
    columns are divided by it. Raises DataError for what cannot be read or compared.
    """
    paths = Path(first), Path(second)
    tables = [path.suffix.lower() in (".csv", ".parquet") for path in paths]
    if not any(tables):
        if columns or categories:
            raise DataError("columns have names in tables alone; give .csv or .parquet files")
        arrays = [read_npz(path, ["x"])[0] for path in paths]
        return _scaled(Samples(arrays[0], arrays[1], None, None), scale)
    if not all(tables):
        raise DataError(f"{paths[0]} and {paths[1]} differ in form; give two tables or two .npz")
    a, b = (read_table(path) for path in paths)
    names = _common(a, b, columns, categories)
    parts = [_column(a[name], b[name], name, name in categories) for name in names]
    found = Samples(
        np.stack([part[0] for part in parts], 1),
        np.stack([part[1] for part in parts], 1),
        names,
        tuple(part[2] for part in parts),
        () if columns else tuple(sorted(a.keys() ^ b.keys())),
    )
    return _scaled(found, scale)


def _common(
    a: dict[str, Array], b: dict[str, Array], columns: tuple[str, ...], categories: tuple[str, ...]
) -> tuple[str, ...]:
    shared = tuple(name for name in a if name in b)
    if not shared:
        raise DataError(
            f"the tables have no column in common: {listed(a, 5)} and {listed(b, 5)}; give two "
            "tables of the same features"
        )
    for name in (*columns, *categories):
        if name not in shared:
            raise DataError(
                f"column {name!r} is not in both tables{did_you_mean(name, shared) or ';'} both "
                f"have {listed(shared)}"
            )
    return columns or shared


def _column(a: Array, b: Array, name: str, category: bool) -> tuple[Array, Array, Kind]:
    kinds = a.dtype.kind + b.dtype.kind
    if category or set(kinds) - set("iuf"):
        _, codes = np.unique(np.concatenate([a.astype(str), b.astype(str)]), return_inverse=True)
        codes = codes.astype(np.float64)
        return codes[: len(a)], codes[len(a) :], "categorical"
    kind: Kind = "continuous" if "f" in kinds else "integer"
    return a.astype(np.float64), b.astype(np.float64), kind


def _scaled(found: Samples, scale: float) -> Samples:
    if scale == 1:
        return found
    if not 0 < scale < float("inf"):
        raise DataError(f"scale is {scale:g}; give a finite number above 0, such as 255")
    kinds = found.kinds
    # Arrays of whole numbers, such as 8-bit pictures, are none once they are scaled.
    by = (
        np.asarray(scale)
        if kinds is None
        else np.asarray([scale if kind == "continuous" else 1.0 for kind in kinds])
    )
    return found._replace(first=found.first / by, second=found.second / by)
