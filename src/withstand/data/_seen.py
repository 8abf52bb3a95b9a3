"""What a file or folder of data says about how it is read."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, listed
from ._npz import read_npz
from ._prepare import existing

_IMAGES = (".png", ".jpg", ".jpeg")
# What people call the arrays, those to test on first.
_X = ("x_test", "X_test", "test_images", "x", "X", "images", "inputs", "data", "features")
_Y = ("y_test", "Y_test", "test_labels", "y", "Y", "labels", "targets", "target")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Keys of the section data, the domain that goes with them, and what is left to say."""

    kind: Literal["npz", "images", "audio"]
    domain: tuple[float, float] = (0.0, 1.0)
    x: str | None = None
    y: str | None = None
    scale: int | None = None
    unsure: tuple[str, ...] = ()


def see(path: Path) -> Seen:
    """How an .npz file, or a folder of images or .wav files, is read.

    Raises DataError for anything else.
    """
    if path.is_dir():
        return _folder(path)
    path = existing(path)
    if path.suffix.lower() != ".npz":
        raise DataError(
            f"{path} is no .npz, .parquet or .csv, and no folder; give one of them to propose from"
        )
    try:
        with zipfile.ZipFile(path) as file:
            keys = [name.removesuffix(".npy") for name in file.namelist()]
    except (zipfile.BadZipFile, OSError):
        raise DataError(f"{path} is not an .npz file; write it with numpy.savez") from None
    x = next((key for key in _X if key in keys), None)
    y = next((key for key in _Y if key in keys), None)
    unsure = [
        f"{path} holds {listed(keys)}, and none is named as {what} are; set data.{key}"
        for what, key, found in (("inputs", "x", x), ("labels", "y", y))
        if found is None
    ]
    if x is None:
        return Seen(kind="npz", y=y, unsure=tuple(unsure))
    [values] = read_npz(path, [x])
    domain, scale, doubt = _range(values)
    if doubt is not None:
        unsure.append(doubt)
    return Seen(kind="npz", domain=domain, x=x, y=y, scale=scale, unsure=tuple(unsure))


def _folder(path: Path) -> Seen:
    suffixes = {file.suffix.lower() for file in path.glob("*/*") if file.is_file()}
    if suffixes & set(_IMAGES):
        return Seen(kind="images", scale=255)
    if ".wav" in suffixes:
        return Seen(kind="audio", domain=(-1.0, 1.0))
    raise DataError(
        f"{path} has no images or .wav files in folders, one for each class; give a file, or put "
        "them there"
    )


def _range(x: NDArray[Any]) -> tuple[tuple[float, float], int | None, str | None]:
    """The domain of raw inputs, their scale, and why they may be wrong."""
    if x.dtype.kind not in "biuf" or not np.isfinite(x).all() or not x.size:
        return (0.0, 1.0), None, None
    low, high = float(x.min()), float(x.max())
    if low >= 0 and high <= 1:
        return (0.0, 1.0), None, None
    if x.dtype == np.uint8:
        return (0.0, 1.0), 255, None
    domain = (float(math.floor(low)), float(math.ceil(high)))
    return (
        domain,
        None,
        f"inputs run from {low:g} to {high:g}, so the domain is said to be {domain[0]:g} to "
        f"{domain[1]:g}; correct it to what can be, and if they are normalised, give raw ones and "
        "let the model normalise",
    )
