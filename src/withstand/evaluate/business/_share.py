"""A share of money, with its interval."""

from __future__ import annotations

from math import fsum, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import Interval

Array = NDArray[Any]


def weighted_share(
    weights: Array, hits: Array, confidence: float = 0.95, *, groups: Array | None = None
) -> Interval:
    """The share of the weights (n,), at least 0, that is hit (n,), with its interval.

    Wilson's interval for an effective number of rows: the smaller of Kish's, (sum w)^2 / sum w^2,
    and the one that has the linearised variance of the ratio (Korn and Graubard 1998). A few large
    weights make it wide; a share of 0 or 1 has a width too. n is the number of rows. groups (n,):
    whose row each is; rows of one are then taken together, and Student's t with one degree less
    than there are groups in effect stands for the normal law. Without, rows are independent.
    """
    weights = np.asarray(weights, np.float64)
    hits = np.asarray(hits, bool)
    total, n = fsum(weights), len(weights)
    if not total > 0:
        return Interval(value=nan, low=nan, high=nan, n=0)
    # Scaled first, so that neither squares nor their sum leave the range of numbers.
    shares = weights / total
    share = fsum(shares[hits]) if not hits.all() else 1.0
    effective = 1 / fsum(shares**2)
    whole, off = shares, shares * (hits - share)
    if groups is not None:
        whole, off = _together(np.asarray(groups), shares, off)
    units = 1 / fsum(whole**2)
    if not 0 < share < 1:
        effective = units
    elif len(whole) == 1:
        effective = 1.0
    elif variance := fsum(off**2) * len(whole) / (len(whole) - 1):
        effective = min(effective, share * (1 - share) / variance)
    z = _quantile((1 + confidence) / 2, None if groups is None else units - 1)
    centre = (share + z * z / (2 * effective)) / (1 + z * z / effective)
    spread = sqrt(max(share * (1 - share), 0) / effective + z * z / (4 * effective**2))
    half = z / (1 + z * z / effective) * spread
    return Interval(
        value=min(share, 1.0),
        low=max(0.0, centre - half) if share > 0 else 0.0,
        high=min(1.0, centre + half) if share < 1 else 1.0,
        n=n,
    )


def _together(groups: Array, *values: Array) -> list[Array]:
    """Sums of values (n,) over each group, the same in whatever order the rows are."""
    place = np.unique(groups, return_inverse=True)[1]
    order = np.lexsort((*values, place))
    return [np.bincount(place[order], one[order]) for one in values]


def _quantile(level: float, degrees: float | None) -> float:
    """Of the normal law, or of Student's with at least one degree of freedom."""
    from scipy.special import stdtrit

    if degrees is None:
        return NormalDist().inv_cdf(level)
    return float(stdtrit(max(degrees, 1.0), level))
