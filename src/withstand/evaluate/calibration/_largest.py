"""How far the number that moves furthest does, where several may be it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import Ends
from ._rows import Rows
from ._shift import Range, ranges

Array = NDArray[Any]
_DRAWS = 1000


def largest(
    both: Rows, coverage: float, confidence: float, surely: NDArray[np.bool_], *, seed: int
) -> Ends:
    """The size of the number that moves furthest, of those that surely moved if there are any.

    It is the largest of several ends of ranges, and any of them that is near it may seem so by
    chance. The high end errs only where all of these do; the low end gets what that leaves of the
    error, shared among those that may be the furthest.
    """
    middle = ranges(both, coverage, confidence)
    among = surely if surely.any() else np.ones(len(surely), bool)
    seen = Ends(*(part[:, among] for part in _sizes(middle.moves())))
    if not surely.any():
        return Ends(seen.value.max(), np.zeros(()), seen.high.max())
    rivals = np.zeros(middle.first.value.shape, bool)
    rivals[:, among] = seen.high >= seen.low.max()
    found = Ends(*(part[rivals[:, among]] for part in seen))
    error = _left(_noise(both, middle, rivals, seed), found, (1 - confidence) / 2)
    strict = _sizes(ranges(both, coverage, 1 - 2 * error).moves())
    return Ends(seen.value.max(), strict.low[:, among].max(), seen.high.max())


def _sizes(moves: Ends) -> Ends:
    """How far each end (2, d) moves, in whichever direction."""
    least = np.maximum(np.maximum(moves.low, -moves.high), 0.0)
    return Ends(np.abs(moves.value), least, np.maximum(-moves.low, moves.high))


def _left(noise: Array, rivals: Ends, tail: float) -> float:
    """The error of each low end (R,) that makes, with the high ends', 2 `tail` in all.

    noise (draws, R): standard normal errors of the rivals' sizes. Those count as further behind the
    first only by as much as chance would not put between R that are alike (as in the selection of
    moments, Andrews and Soares 2010).
    """
    from scipy.special import ndtr, ndtri

    spread = np.maximum(rivals.value - rivals.low, 1e-300) / -ndtri(tail)
    first = rivals.value.argmax()
    chance = np.sqrt(2 * np.log(len(spread))) * np.hypot(spread, spread[first])
    behind = np.maximum(rivals.value[first] - rivals.value - chance, 0.0) / spread
    highest = (noise - behind).max(1)
    missed = float((highest < ndtri(tail)).mean())
    return float(ndtr(-np.quantile(highest, 1 - 2 * tail + missed)))


def _noise(both: Rows, middle: Range, rivals: NDArray[np.bool_], seed: int) -> Array:
    """Draws (draws, R) of the standard errors of the rivals' sizes, as they go together.

    Quantiles err as the shares of the rows below them do, and these as sums of the rows with normal
    multipliers (Chernozhukov et al. 2013, section 3); each sample by its number of rows.
    """
    way = np.sign(middle.moves().value)[rivals]
    ends, columns = np.nonzero(rivals)
    parts = []
    for sample, found in zip(both[:2], middle, strict=True):
        below = sample[:, both.numeric[columns]] <= found.value[ends, columns]
        parts.append((below - below.mean(0)) / len(sample))
    joined = np.concatenate((-parts[0], parts[1])) * way
    length = np.sqrt(np.square(joined).sum(0))
    joined /= np.where(length > 0, length, 1.0)
    # Sums with normal multipliers depend on the rows' products only, which fewer rows have too.
    basis = np.linalg.qr(joined, mode="r") if len(way) < len(joined) else joined
    return np.asarray(np.random.default_rng(seed).normal(size=(_DRAWS, len(basis))) @ basis)
