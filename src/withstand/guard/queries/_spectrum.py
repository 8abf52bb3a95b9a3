"""How a picture's energy is spread over frequencies, and how unlike benign ones that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Where bands of frequencies begin: single ones first, then ever wider.
_EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)
_WINDOW, _SMALLEST, _CHANNELS = 32, 8, 4
_TOP = 4
# Shares of the benign variance: less energy than this in a band tells nothing, and of the bands'
# own variance: so much more is put on their diagonal.
_FLOOR, _RIDGE = 0.002, 0.03
_ODD = 1e9


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """What the energies of a benign picture's bands are, each given all others.

    A search often begins with a pattern that no picture has, such as the stripes of the Square
    attack: where much energy in one band comes with none in those beside it, a single query tells.
    Of pictures larger than 32 x 32 a window is looked at.

    shape: of a query, HxW, CxHxW or HxWxC with at most four channels. mixing (C, C): the directions
    in which colours vary. mean (F,), floor: of the logarithms of the bands' energies. unlike
    (F, F): from those to how much more there is than the others tell, in standard deviations.
    """

    shape: tuple[int, ...]
    mixing: Array
    mean: Array
    unlike: Array
    floor: float

    @staticmethod
    def fit(benign: Array, *, seed: int) -> Spectrum | None:
        """The spectrum of queries (N, ...) like these; None where they are no pictures."""
        shape = benign.shape[1:]
        if _sizes(shape) is None:
            return None
        pictures = _pictures(benign.reshape(len(benign), -1), shape)
        colours = np.moveaxis(pictures, 1, 0).reshape(pictures.shape[1], -1)
        _, mixing = np.linalg.eigh(np.atleast_2d(np.cov(colours)))
        floor = _FLOOR * float(np.var(colours))
        if not floor > 0:
            return None
        untold = np.zeros(0, np.float32)
        made = Spectrum(
            shape=shape, mixing=mixing.astype(np.float32), mean=untold, unlike=untold, floor=floor
        )
        bands = made._bands(benign.reshape(len(benign), -1), np.random.default_rng(seed))
        mean = bands.mean(0)
        spread = np.cov(bands, rowvar=False).astype(np.float64)
        spread += _RIDGE * np.eye(len(spread)) * np.trace(spread) / len(spread)
        precision = np.linalg.inv(spread)
        return Spectrum(
            shape=shape, mixing=made.mixing, mean=mean.astype(np.float32), floor=floor,
            unlike=(precision / np.sqrt(np.diag(precision))).astype(np.float32),
        )  # fmt: skip

    def score(self, x: Array, rng: np.random.Generator) -> Array:
        """How unlike benign ones queries (B, F) are: what the four bands with the most energy that
        the others do not tell have of it, together."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._bands(x, rng).dot(self.unlike)
            found -= self._usual
            found.partition(found.shape[1] - _TOP)
            scores = np.asarray(found[:, -_TOP:].sum(1))
            if not math.isfinite(scores.sum()):
                # What overflows is like nothing.
                scores = np.where(np.isfinite(scores), scores, _ODD)
        return scores

    def score_one(self, x: Array, rng: np.random.Generator) -> float:
        """The same of one query (1, F), whose numbers are too small to overflow."""
        rows, columns, down, across = self._parts
        if self._plain:
            picture = x.reshape(len(rows), len(columns))
        else:
            picture = self._window(_pictures(x, self.shape), rng).reshape(len(rows), len(columns))
        # For what has two axes `dot` takes half the time of `@`.
        waves = rows.dot(picture).dot(columns)
        waves *= waves
        energy = down.dot(waves).dot(across).reshape(-1)
        energy += self._least
        found = np.log(energy, energy).dot(self.unlike)
        found -= self._usual
        score = 0.0
        # For so few this takes a quarter of the time that sorting takes.
        for _ in range(_TOP):
            highest = found.argmax()
            score += found.item(highest)
            found[highest] = -math.inf
        return score

    def _bands(self, x: Array, rng: np.random.Generator) -> Array:
        """Logarithms of the mean energy in each band (B, F), of one window of each query."""
        rows, columns, down, across = self._parts
        pictures = _pictures(x, self.shape)
        found = []
        # Queries that are asked together share a window; some hundred at once fit into caches.
        for first in range(0, len(x), 128):
            some = self._window(pictures[first : first + 128], rng)
            count = len(some)
            waves = rows @ some.reshape(count, len(rows), len(columns)) @ columns
            waves *= waves
            energy = down @ waves @ across
            energy += self.floor
            found.append(np.log(energy, out=energy).reshape(count, -1))
        return found[0] if len(found) == 1 else np.concatenate(found)

    @staticmethod
    def _window(pictures: Array, rng: np.random.Generator) -> Array:
        """What is looked at of pictures (B, C, H, W), in the same place of each."""
        height, width = pictures.shape[2:]
        if height > _WINDOW:
            top = int(rng.integers(height - _WINDOW + 1))
            pictures = pictures[:, :, top : top + _WINDOW]
        if width > _WINDOW:
            left = int(rng.integers(width - _WINDOW + 1))
            pictures = pictures[..., left : left + _WINDOW]
        return pictures

    @cached_property
    def _plain(self) -> bool:
        """Whether a query as it lies is its window, one row of a channel after the other."""
        sizes = _sizes(self.shape)
        return sizes is not None and max(sizes) <= _WINDOW and self.shape[-2:] == sizes[1:]

    @cached_property
    def _least(self) -> Array:
        # A number would first be made into this, each time.
        return np.asarray(self.floor, np.float32)

    @cached_property
    def _usual(self) -> Array:
        return np.asarray(self.mean.dot(self.unlike))

    @cached_property
    def _parts(self) -> tuple[Array, Array, Array, Array]:
        """Matrices from a window to its waves, and from their squares to means over bands."""
        sizes = _sizes(self.shape)
        assert sizes is not None
        channels, *sides = sizes
        height, width = (min(side, _WINDOW) for side in sides)
        each = np.eye(channels)
        return (
            np.kron(self.mixing.T, _cosines(height)).astype(np.float32),
            _cosines(width).T.astype(np.float32),
            np.kron(each, _means(height)).astype(np.float32),
            _means(width).T.astype(np.float32),
        )


def _sizes(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Channels, height and width, None where these are no pictures."""
    sizes = None
    if len(shape) == 2:
        sizes = (1, *shape)
    elif len(shape) == 3:
        sizes = (shape[2], *shape[:2]) if _last(shape) else shape
    if sizes is None or sizes[0] > _CHANNELS or min(sizes[1:]) < _SMALLEST:
        return None
    return sizes[0], sizes[1], sizes[2]


def _last(shape: tuple[int, ...]) -> bool:
    return shape[2] <= _CHANNELS < shape[0]


def _pictures(x: Array, shape: tuple[int, ...]) -> Array:
    """Queries (B, F) as pictures (B, C, H, W)."""
    if len(shape) == 2:
        return x.reshape(len(x), 1, *shape)
    found = x.reshape(len(x), *shape)
    return np.moveaxis(found, -1, 1) if _last(shape) else found


def _cosines(size: int) -> Array:
    """The orthonormal cosine transform (DCT-II), one frequency in each row."""
    found = np.cos(np.pi / size * np.arange(size)[:, None] * (np.arange(size) + 0.5))
    found *= np.sqrt(2 / size)
    found[0] /= np.sqrt(2)
    return np.asarray(found)


def _means(size: int) -> Array:
    """From squares of waves to their means over bands, one band in each row."""
    edges = [*(edge for edge in _EDGES if edge < size), size]
    found = np.zeros((len(edges) - 1, size))
    for number, (low, high) in enumerate(pairwise(edges)):
        found[number, low:high] = 1 / (high - low)
    return found
