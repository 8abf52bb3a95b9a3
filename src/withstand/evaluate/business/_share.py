"""A share of money, with its interval."""

from __future__ import annotations

from math import fsum, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import Interval

Array = NDArray[Any]


def weighted_share(weights: Array, hits: Array, confidence: float = 0.95) -> Interval:
    """The share of the weights (n,), at least 0, that is hit (n,), with its interval.

    Wilson's interval for an effective number of rows: the smaller of Kish's, (sum w)^2 / sum w^2,
    and the one that has the linearised variance of the ratio (Korn and Graubard 1998). A few large
    weights make it wide; a share of 0 or 1 has a width too. n is the number of rows.
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
    if 0 < share < 1:
        variance = fsum(shares**2 * (hits - share) ** 2) * n / (n - 1)
        effective = min(effective, share * (1 - share) / variance)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z * z / (2 * effective)) / (1 + z * z / effective)
    spread = sqrt(max(share * (1 - share), 0) / effective + z * z / (4 * effective**2))
    half = z / (1 + z * z / effective) * spread
    return Interval(
        value=min(share, 1.0),
        low=max(0.0, centre - half) if share > 0 else 0.0,
        high=min(1.0, centre + half) if share < 1 else 1.0,
        n=n,
    )
