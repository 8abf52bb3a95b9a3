"""How far shares of bins have moved."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def stability(before: ArrayLike, now: ArrayLike) -> float:
    """The population stability index of counts (K,) against those before, 0 where none moved.

    The sum of (q - p) log(q / p) over the bins' shares p and q, which is the symmetric
    Kullback-Leibler divergence (Kullback and Leibler 1951, equation 2.6); half a row is added to
    each bin, so that empty ones count and are finite.
    """
    usual, shares = _shares(before), _shares(now)
    return float(((shares - usual) * np.log(shares / usual)).sum())


def stability_by_chance(bins: int, before: int, now: int, chance: float) -> float:
    """What the index of K bins exceeds with this chance where nothing moved.

    before, now: the rows counted. The index is close to a chi-squared variable with K - 1 degrees
    of freedom, times 1 / before + 1 / now.
    """
    from scipy.special import chdtri

    return float(chdtri(bins - 1, chance) * (1 / before + 1 / now))


def _shares(counts: ArrayLike) -> Array:
    counts = np.asarray(counts, np.float64)
    return np.asarray((counts + 0.5) / (counts.sum() + len(counts) / 2))
