"""A few bits that stay nearly the same while an input is changed a little."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError

Array = NDArray[Any]

WORDS = 4
"""Of 64 bits, in each of a sketch's two halves."""

_FEATURES = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketcher:
    """Signs of random projections of an input, less the mean of benign ones (Charikar 2002).

    The share of bits in which two sketches differ is the angle between the inputs over pi. The
    second half weighs each feature by how little it varies in benign inputs: there, a change of
    what is mostly black or blank is not drowned by what varies anyway. Large inputs are averaged
    over runs of neighbours first. Made with a secret seed, since whoever knows the projections can
    move without changing a bit.
    """

    shape: tuple[int, ...]
    mean: Array
    projections: Array

    @staticmethod
    def fit(benign: Array, *, seed: int) -> Sketcher:
        """A sketcher for inputs like these (N, ...); raises DataError for fewer than two."""
        if len(benign) < 2:
            raise DataError(f"{len(benign)} benign inputs; give at least 2, better hundreds")
        shape = benign.shape[1:]
        features = _features(benign, shape)
        size = (2, features.shape[1], 64 * WORDS)
        plain, weighted = np.random.default_rng(seed).standard_normal(size)
        spread = features.std(0) + 1e-6 * float(features.std()) + 1e-12
        return Sketcher(
            shape=shape,
            mean=features.mean(0).astype(np.float32),
            projections=np.hstack((plain, weighted / np.sqrt(spread)[:, None])).astype(np.float32),
        )

    def __call__(self, x: Array) -> Array:
        """Sketches (B, 8), words of 64 bits, of inputs (B, ...); raises DataError for others."""
        if x.shape[1:] != self.shape:
            raise DataError(f"inputs have shape {x.shape[1:]}, not {self.shape}")
        projected = (_features(x, self.shape) - self.mean) @ self.projections
        return np.packbits(projected > 0, axis=1).view(np.uint64)


def _features(x: Array, shape: tuple[int, ...]) -> Array:
    """At most some thousand numbers (B, F) of each input: means over runs of neighbours."""
    flat = x.reshape(len(x), -1).astype(np.float32)
    run = -(-prod(shape) // _FEATURES)
    if run == 1:
        return flat
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % run)), mode="edge")
    return np.asarray(flat.reshape(len(flat), -1, run).mean(2))


def differing(kept: Array, sketch: Array) -> tuple[Array, Array]:
    """In how many bits those kept (8, N) differ from a sketch (8,), (N,) for each half."""
    bits = np.bitwise_count(kept ^ sketch[:, None])
    return bits[:WORDS].sum(0, dtype=np.uint16), bits[WORDS:].sum(0, dtype=np.uint16)
