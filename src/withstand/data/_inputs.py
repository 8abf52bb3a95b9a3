"""Inputs alone, of a file without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError
from ..config import DataConfig
from ._dataset import check_finite, to_float32
from ._images import load_images
from ._npz import read_npz
from ._prepare import arranged, existing, need, rescaled
from ._table import read_table
from ._tabular import columns_of, load_table


def load_inputs(path: str | Path, spec: DataConfig, root: str | Path = ".") -> NDArray[np.float32]:
    """The inputs (N, ...) in an .npz, .csv or .parquet file or a folder of images.

    Read as a data section says: its key, columns, scale, layout, size and table, whose path counts
    from `root`; labels need not be there. Raises DataError.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return load_images(path, size=spec.size, scale=spec.scale).x
    path, kind = existing(path), path.suffix.lower()
    if kind == ".npz":
        x = arranged(_array(path, spec), spec.layout)
    elif kind in (".csv", ".parquet") and spec.table is not None:
        table = load_table(Path(root) / spec.table)
        return table.encode(columns_of(path, table))
    elif kind in (".csv", ".parquet"):
        x = _columns(read_table(path), spec, path)
    else:
        raise DataError(
            f"{path} ends in {kind or 'nothing'}; give an .npz, .csv or .parquet file, or a folder "
            "of images"
        )
    x = to_float32(rescaled(x, spec.scale))
    if x.ndim < 2 or not x.size:
        raise DataError(f"{path} holds inputs of shape {x.shape}; give one row per input, (N, ...)")
    check_finite(x, None)
    return x


def _array(path: Path, spec: DataConfig) -> NDArray[Any]:
    """Under the key of the data section, or under x where there is no such key."""
    try:
        return read_npz(path, [spec.x])[0]
    except DataError:
        if spec.x == "x":
            raise
        return read_npz(path, ["x"])[0]


def _columns(table: dict[str, NDArray[Any]], spec: DataConfig, path: Path) -> NDArray[Any]:
    names = spec.features or [name for name in table if name not in (spec.y, spec.group)]
    for name in names:
        need(name, list(table), what="column", where=path)
    return np.stack([to_float32(table[name]) for name in names], 1)
