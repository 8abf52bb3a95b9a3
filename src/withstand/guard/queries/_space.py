"""Where inputs lie among benign ones, in few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError

Array = NDArray[Any]

AXES = 32
CELLS = 64

_MEANS = 1024
_FEWEST = 100
_CLOSE = 0.1
_SHORTEST = 0.1
# A dtype is compared with this in a tenth of the time that a class takes.
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """The directions in which benign inputs vary most, cut into cells, each with a length.

    A search moves in all directions alike, and hardly in these few: all that it asks about one
    input stays in one place, wherever in its region that is. How near is near differs from cell to
    cell, as benign inputs lie denser in some: `lengths` (C,) are the distances within which a tenth
    of them have a neighbour.

    size: of an input. projection (F, D), offset (D,): of its F means over runs of neighbours;
    each direction by the fourth root of its variance. centres (C, D): of the cells. Cells and the
    weights of directions come from a secret seed.
    """

    size: int
    projection: Array
    offset: Array
    centres: Array
    lengths: Array

    @staticmethod
    def fit(benign: Array, *, seed: int) -> Space:
        """The space of inputs like these (N, F); raises DataError for fewer than a hundred."""
        from sklearn.cluster import KMeans

        if len(benign) < _FEWEST:
            raise DataError(f"{len(benign)} benign inputs; give at least {_FEWEST}")
        rng = np.random.default_rng(seed)
        means = _means(benign).astype(np.float64)
        centre = means.mean(0)
        variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(means, rowvar=False)))
        chosen = np.argsort(variances)[::-1][:AXES]
        chosen = chosen[variances[chosen] > 1e-9 * variances[chosen[0]]]
        if not len(chosen):
            raise DataError("all benign inputs are the same; give ones that differ")
        weights = rng.uniform(0.8, 1.25, len(chosen)) / variances[chosen] ** 0.25
        projection = axes[:, chosen] * weights
        points = (means - centre) @ projection
        found = KMeans(min(CELLS, len(points) // 50), n_init=1, random_state=seed % 2**32)
        cells = found.fit_predict(points)
        return Space(
            size=benign.shape[1],
            projection=projection.astype(np.float32),
            offset=(centre @ projection).astype(np.float32),
            centres=found.cluster_centers_.astype(np.float32),
            lengths=_lengths(points, cells).astype(np.float32),
        )

    def place(self, x: Array) -> tuple[Any, Array]:
        """The cells (B,) of inputs (B, F), and their places (B, D + 1) in units of the cell's
        length, each with a 1 at its end; for one input (F,) its cell and its place (D + 1,).

        Raises DataError for inputs of another size.
        """
        if x.shape[-1] != self.size or x.ndim > 2:
            raise DataError(f"inputs have {x.shape[x.ndim > 1 :]} numbers, not {self.size}")
        projection, offset, centres, squares, scales = self._parts
        # `dot` takes two thirds of the time of `@` for a single row.
        points = _means(x).dot(projection)
        points -= offset
        apart = points.dot(centres)
        apart -= squares
        cells = apart.argmax(-1)
        points *= scales[cells]
        return cells, points

    @cached_property
    def _parts(self) -> tuple[Array, ...]:
        """What `place` computes with, so that the 1 comes of itself: it has microseconds."""
        (means, axes), cells = self.projection.shape, len(self.centres)
        return (
            # For a single row this order takes two thirds of the time of the other.
            np.asfortranarray(np.hstack((self.projection, np.zeros((means, 1), np.float32)))),
            np.append(self.offset, np.float32(-1)),
            np.vstack((2 * self.centres.T, np.zeros((1, cells), np.float32))),
            (self.centres**2).sum(1),
            np.hstack(
                (np.repeat(1 / self.lengths[:, None], axes, 1), np.ones((cells, 1), np.float32))
            ),
        )


def _means(x: Array) -> Array:
    """At most some thousand numbers of each input (..., F): means over runs of neighbours."""
    size = x.shape[-1]
    run = -(-size // _MEANS)
    if x.dtype != _FLOAT:
        x = x.astype(_FLOAT)
    if run == 1:
        return x
    x = np.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, -size % run)), mode="edge")
    return np.asarray(x.reshape(*x.shape[:-1], -1, run).mean(-1))


def _lengths(points: Array, cells: Array) -> Array:
    from scipy.spatial.distance import cdist

    found = np.full(cells.max() + 1, np.nan)
    for cell in range(len(found)):
        inside = points[cells == cell]
        if len(inside) < 10:
            continue
        apart = cdist(inside, inside)
        apart[apart == 0] = np.inf
        nearest = apart.min(1)
        if np.isfinite(nearest).any():
            found[cell] = np.quantile(nearest[np.isfinite(nearest)], _CLOSE)
    if np.isnan(found).all():
        raise DataError("benign inputs are copies of few; give ones that differ")
    usual = np.nanmedian(found)
    # Copies of one input among the benign must not make the watch blind around it.
    return np.asarray(np.fmax(np.where(np.isnan(found), usual, found), _SHORTEST * usual))
