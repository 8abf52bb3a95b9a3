"""Optimal transport: the least change that turns one sample into another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._result import Transport
from ._rows import Rows

Array = NDArray[Any]
_ROWS = 400
_DEALS = 99


def earth_movers(a: Array, b: Array) -> float:
    """The exact 1-Wasserstein distance of numbers (n,) and (m,): the area between their
    distribution functions (Villani 2009, remark 2.19).
    """
    values = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(part), values[:-1], "right") / len(part) for part in (a, b)]
    return float(np.abs(below[0] - below[1]) @ np.diff(values))


def flips(a: Array, b: Array) -> tuple[float, float]:
    """The least share of rows whose category must change, and Pearson's p-value that none must."""
    from scipy.special import gammaincc

    categories, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    if len(categories) == 1:
        return 0.0, 1.0
    counts = np.stack(
        [np.bincount(part, minlength=len(categories)) for part in np.split(codes, [len(a)])]
    )
    shares = counts / counts.sum(1, keepdims=True)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    statistic = (np.square(counts - expected) / expected).sum()
    p_value = gammaincc((len(categories) - 1) / 2, statistic / 2)
    return float(np.abs(shares[0] - shares[1]).sum() / 2), float(p_value)


def joint(both: Rows, seed: int) -> Transport | None:
    """The exact assignment of rows to rows by Euclidean distance of their numbers.

    Of each sample at most 400 rows, drawn at random, are assigned. In many dimensions even two
    samples of one population lie far apart, so 99 random deals of the rows give the floor. None
    without numbers.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if not len(both.numeric):
        return None
    rng = np.random.default_rng(seed)
    k = min(len(both.first), len(both.second), _ROWS)
    pooled = np.concatenate(
        [sample[rng.permutation(len(sample))[:k]][:, both.numeric] for sample in both[:2]]
    )
    between = cdist(pooled, pooled)

    def assigned(order: NDArray[np.intp]) -> float:
        cost = between[np.ix_(order[:k], order[k:])]
        return float(cost[linear_sum_assignment(cost)].mean())

    distance = assigned(np.arange(2 * k))
    dealt = np.asarray([assigned(rng.permutation(2 * k)) for _ in range(_DEALS)])
    return Transport(
        distance=distance,
        floor=float(np.quantile(dealt, 0.95)),
        p_value=float((1 + (dealt >= distance).sum()) / (1 + _DEALS)),
        rows=k,
    )
