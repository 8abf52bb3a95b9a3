"""Inputs as pictures, made here from numbers alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_SIDE, _LEAST, _WIDEST = 224, 4, 1024


def looks_like_picture(x: Array) -> bool:
    """Whether one input may be seen as a picture: (H, W), (1, H, W), (3, H, W) or (H, W, 3)."""
    return x.dtype.kind in "biuf" and _arranged(x) is not None


def picture(x: Array) -> bytes:
    """One input as PNG; raises ValueError for what is none.

    Whole numbers are seen on 0 to 255, others on 0 to 1, or on their own range where they leave
    that.
    """
    found = _channels(x)
    ends = (0.0, 255.0) if x.dtype.kind in "iu" else (0.0, 1.0)
    low, high = float(found.min(initial=0.0)), float(found.max(initial=0.0))
    if low < ends[0] or high > ends[1]:
        ends = (low, high)
    return _png((found - ends[0]) / max(ends[1] - ends[0], 1e-12))


def difference(x: Array, other: Array) -> tuple[bytes, float]:
    """What x has more (light) or less (dark) than another one, on grey, and how magnified."""
    gap = _channels(x) - _channels(other)
    size = float(np.abs(gap).max(initial=0.0))
    factor = 0.5 / size if size else 1.0
    return _png(0.5 + gap * factor), magnified(x, size)


def magnified(x: Array, size: float) -> float:
    """How many times a difference of this size is magnified to fill half the scale of x."""
    return (255.0 if x.dtype.kind in "iu" else 1.0) / (2 * size) if size else 1.0


def _arranged(x: Array) -> Array | None:
    if x.ndim == 3 and x.shape[0] == 1:
        x = x[0]
    elif x.ndim == 3 and x.shape[0] == 3 and x.shape[2] != 3:
        x = np.moveaxis(x, 0, 2)
    elif x.ndim == 3 and x.shape[2] == 1:
        x = x[:, :, 0]
    sides = x.shape[:2]
    flat = x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 3)
    return x if flat and min(sides) >= _LEAST and max(sides) <= 4096 else None


def _channels(x: Array) -> Array:
    found = _arranged(x)
    if found is None:
        raise ValueError(f"an input of shape {x.shape} is no picture")
    return np.nan_to_num(found.astype(np.float64), nan=0.0, posinf=1e9, neginf=-1e9)


def _png(x: Array) -> bytes:
    from PIL import Image

    pixels = np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)
    made = Image.fromarray(pixels)
    side = max(made.size)
    if side < _SIDE:
        times = -(-_SIDE // side)
        size = (made.width * times, made.height * times)
        made = made.resize(size, Image.Resampling.NEAREST)
    made.thumbnail((_WIDEST, _WIDEST))
    out = io.BytesIO()
    made.save(out, "PNG")
    return out.getvalue()
