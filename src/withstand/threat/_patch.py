"""Patches, frames and stickers: regions in which a few places are free to take any value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import ThreatError
from ._region import Linf, Mask, Region

Rectangle = tuple[int, int, int, int]
"""Height, width, top and left, in pixels."""


def patch(
    shape: Sequence[int], height: int, width: int, top: int, left: int, *, span: float = inf
) -> Region:
    """One rectangle of the picture is free (Brown et al. 2017): every attack makes a patch.

    shape: one sample's (C, H, W) or (H, W). span: by how much a value may change, all that the
    model's domain allows if not given. Sizes are in pixels. Raises ThreatError for a
    rectangle that is empty or leaves the picture.
    """
    return stickers(shape, [(height, width, top, left)], span=span)


def frame(shape: Sequence[int], width: int, *, span: float = inf) -> Region:
    """A frame along the edges is free, `width` pixels wide; shape and span as in `patch`.

    Raises ThreatError for a frame that is empty or leaves nothing of the picture.
    """
    rows, columns = _picture(shape)
    if width < 1 or 2 * width >= min(rows, columns):
        raise ThreatError(
            f"a frame of {width} pixels does not fit {rows} x {columns}; give at least 1, and less "
            "than half of the shorter side"
        )
    free = np.ones((rows, columns), bool)
    free[width:-width, width:-width] = False
    return _free(free, span)


def stickers(
    shape: Sequence[int],
    rectangles: Sequence[Rectangle],
    *,
    tones: Sequence[float] | None = None,
    span: float = inf,
) -> Region:
    """Several rectangles are free at once, as stickers on a sign are (Eykholt et al. 2018, RP2).

    rectangles: (height, width, top, left) each; they may overlap. tones: the only values to print
    with, (0, 1) for black and white; any value if not given. shape and span as in `patch`. Raises
    ThreatError for no rectangle, or one that is empty or leaves the picture.
    """
    rows, columns = _picture(shape)
    if not len(rectangles):
        raise ThreatError("there are no stickers; give at least one (height, width, top, left)")
    free = np.zeros((rows, columns), bool)
    for height, width, top, left in rectangles:
        inside = top >= 0 and left >= 0 and top + height <= rows and left + width <= columns
        if height < 1 or width < 1 or not inside:
            raise ThreatError(
                f"a patch of {height} x {width} at row {top}, column {left} does not fit "
                f"{rows} x {columns}; it has to lie inside the picture"
            )
        free[top : top + height, left : left + width] = True
    region = _free(free, span)
    return region if tones is None else region & Tones(tuple(tones))


@dataclass(frozen=True)
class Tones(Region):
    """A feature that changes takes one of these values: what a printer with few inks can do.

    With one channel (0, 1) is black and white, with three it is the eight full colours. A region
    with gaps has no projection: examples are checked, and attacks whose points lie on the bounds
    reach it (Square, RandomNoise, PGD with step_size=1 and random_start=False).
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(value) for value in self.values))
        if not self.values or not np.isfinite(self.values).all():
            raise ThreatError(f"the tones are {self.values}; give at least one finite value")

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
        printed = (x_adv == x) | np.isin(x_adv, self.values)
        return np.asarray(printed.reshape(len(x), -1).all(1))

    def describe(self) -> str:
        return f"changed features are one of {', '.join(f'{value:g}' for value in self.values)}"


def _picture(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ThreatError(f"the shape is {tuple(shape)}; give one picture's (C, H, W) or (H, W)")
    return int(shape[-2]), int(shape[-1])


def _free(free: NDArray[np.bool_], span: float) -> Region:
    if not span > 0:
        raise ThreatError(f"span is {span}; give by how much values may change, above 0")
    return Mask(free) & Linf(span)
