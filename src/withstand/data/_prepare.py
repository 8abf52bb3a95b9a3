"""From raw arrays to a data set: limit, layout, scale, in that order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, did_you_mean, listed
from ._dataset import Dataset, check_lengths, encode, from_arrays

Array = NDArray[Any]
Layout = Literal["auto", "none", "hwc", "chw"]


def prepare(
    x: Array,
    y: Array,
    *,
    name: str,
    source: str,
    licence: str,
    scale: float = 1.0,
    layout: Layout = "none",
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    groups: Array | None = None,
) -> Dataset:
    """The data set of raw x (N, ...) and y; class indices do not depend on the limit."""
    check_options(scale=scale, limit=limit)
    y, names = encode(y, None if classes is None else tuple(classes))
    check_lengths(x, y, groups)
    if limit is not None and x.ndim:
        # A copy lets go of the rest of the data, which can be large.
        x, y = x[:limit].copy(), y[:limit].copy()
        groups = None if groups is None else groups[:limit].copy()
    return from_arrays(
        rescaled(arranged(x, layout), scale),
        y,
        name=name,
        source=source,
        licence=licence,
        classes=names,
        features=features,
        groups=groups,
        values=y.dtype == np.float32,
    )


def check_options(*, scale: float = 1.0, limit: int | None = None) -> None:
    """Raise DataError for a scale or limit that no data can have."""
    if not (scale > 0 and math.isfinite(scale)):
        raise DataError(f"scale is {scale:g}; give a finite number above 0, such as 255")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; give at least 1, or leave it out for all rows")


def rescaled(x: Array, scale: float) -> Array:
    """x / scale, worked out in float64 only where x itself is that wide."""
    if scale == 1 or x.dtype.kind not in "biuf":
        return x
    wide = x.dtype.kind in "iuf" and x.dtype.itemsize >= 4 and x.dtype != np.float32
    return np.asarray(np.divide(x, scale, dtype=np.float64 if wide else np.float32))


def arranged(x: Array, layout: Layout) -> Array:
    """x (N, ...) with images channels-first.

    auto: square (N, H, H) gets a channel axis, (N, H, W, 3 or 1) moves it to the front, anything
    else is left; hwc and chw say what the raw layout is, and (N, H, W) gets a channel axis.
    """
    if layout not in ("auto", "none", "hwc", "chw"):
        raise DataError(f"layout is {layout!r}; it is one of auto, none, hwc, chw")
    if layout == "none":
        return x
    if layout == "auto":
        if x.ndim == 3 and x.shape[1] == x.shape[2]:
            return x[:, None]
        # An axis of 3 on both ends is ambiguous, and then nothing is moved.
        if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
            return np.moveaxis(x, 3, 1)
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise DataError(
            f"layout {layout} needs x of shape (N, H, W) or 4 axes, not {x.shape}; use layout none"
        )
    return np.moveaxis(x, 3, 1) if layout == "hwc" else x


def existing(path: str | Path, *, folder: bool = False) -> Path:
    """The path if it is a file (or a folder); raises DataError otherwise."""
    path = Path(path)
    if not path.exists():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{path} not found{did_you_mean(path.name, near) or ';'} check the path, which counts "
            "from the configuration's folder if it is relative"
        )
    if folder and not path.is_dir():
        raise DataError(f"{path} is a file; give a folder with one folder for each class")
    if not folder and path.is_dir():
        raise DataError(f"{path} is a folder; give a file")
    return path


def need(key: str, keys: Iterable[str], *, what: str, where: Path) -> None:
    """Raise DataError if a key or column is not among those there are."""
    keys = list(keys)
    if key not in keys:
        raise DataError(
            f"{where.name} has no {what} {key!r}{did_you_mean(key, keys) or ';'} "
            f"it has {listed(keys)}"
        )


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
