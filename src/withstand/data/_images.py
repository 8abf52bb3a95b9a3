"""Images in one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ._dataset import Dataset
from ._folder import class_files
from ._prepare import check_options, prepare

_GREY = ("1", "L", "LA")


def load_images(
    folder: str | Path,
    *,
    size: int | Sequence[int] | None = None,
    mode: Literal["auto", "RGB", "L"] = "auto",
    scale: float = 1.0,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Dataset:
    """PNG and JPEG files as (N, C, H, W) from 0 to 255 / scale, one folder for each class.

    size: resize (bilinear) to one number of pixels or (height, width); mode: auto is L if all files
    are grey. The classes take turns in the order of rows, so a limit sees all of them.
    """
    check_options(scale=scale, limit=limit)
    if mode not in ("auto", "RGB", "L"):
        raise DataError(f"mode is {mode!r}; it is one of auto, RGB, L")
    shape = _shape(size)
    files, labels, names = class_files(folder, (".png", ".jpg", ".jpeg"), limit)
    if mode == "auto":
        mode = "L" if all(_mode(file) in _GREY for file in files) else "RGB"
    images: list[NDArray[Any]] = []
    for file in files:
        image = _read(file, mode, shape)
        if images and image.shape != images[0].shape:
            (h, w), (first_h, first_w) = image.shape[:2], images[0].shape[:2]
            raise DataError(
                f"{file} is {h}x{w} but {files[0].name} is {first_h}x{first_w}; "
                f"resize them all, e.g. size: [{first_h}, {first_w}]"
            )
        images.append(image)
    return prepare(
        np.stack(images),
        np.array(labels),
        name=Path(folder).name,
        source=source or str(folder),
        licence=licence or "unknown",
        scale=scale,
        layout="hwc",
        classes=classes or names,
    )


def _shape(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise DataError(f"size is {size}; give pixels, as one number or (height, width)")
    return sides[0], sides[1]


def _mode(file: Path) -> str:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.mode
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(file, error) from None


def _read(file: Path, mode: str, shape: tuple[int, int] | None) -> NDArray[Any]:
    """One image as (H, W, C) uint8."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits per channel; save it with 8")
            # Pillow warns when a palette with transparency is converted in one step.
            whole = image.convert("RGBA") if "transparency" in image.info else image
            pixels = whole.convert(mode)
            if shape is not None:
                pixels = pixels.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
            array = np.asarray(pixels, np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(file, error) from None
    return array[:, :, None] if array.ndim == 2 else array


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read as an image ({one_line(error, 80)}); save it again or remove it"
    )
