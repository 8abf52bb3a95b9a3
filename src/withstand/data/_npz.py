"""Arrays in an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ._dataset import Dataset
from ._prepare import Layout, existing, need, prepare


def read_npz(path: str | Path, keys: Sequence[str]) -> list[NDArray[Any]]:
    """The arrays under some keys of an .npz file; nothing pickled is opened."""
    path = existing(path)
    damaged = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError)
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except damaged:
            raise DataError(f"{path} is not an .npz file; write it with numpy.savez") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds one bare array; write x and y with numpy.savez")
        arrays = []
        for key in keys:
            need(key, archive.files, what="key", where=path)
            try:
                arrays.append(archive[key])
            except damaged as error:
                if "allow_pickle" in str(error):
                    raise DataError(
                        f"{path}: key {key!r} holds Python objects, which are not opened; "
                        "save numbers or fixed-width text, such as y.astype(str)"
                    ) from None
                raise DataError(
                    f"{path}: key {key!r} is damaged ({one_line(error, 80)}); write the file again"
                ) from None
    return arrays


def load_npz(
    path: str | Path,
    x: str = "x",
    y: str = "y",
    *,
    scale: float = 1.0,
    layout: Layout = "auto",
    limit: int | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Dataset:
    """The arrays under the keys x (N, ...) and y of an .npz file, read without pickle."""
    arrays = read_npz(path, [x, y] if group is None else [x, y, group])
    return prepare(
        arrays[0],
        arrays[1],
        name=Path(path).stem,
        source=source or str(path),
        licence=licence or "unknown",
        scale=scale,
        layout=layout,
        limit=limit,
        classes=classes,
        groups=arrays[2] if group is not None else None,
    )
