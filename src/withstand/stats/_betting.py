"""What is sure of a share from how often something happened: for one look, and for endless looks.

All functions take arrays that broadcast, successes (...) of n (...).
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import BudgetError

Array = NDArray[Any]

_STEPS = 60
_MOST = 10**9


def lower_bound(successes: ArrayLike, n: ArrayLike, alpha: float) -> Array:
    """The share that is exceeded with confidence 1 - alpha (Clopper and Pearson 1934, one-sided).

    For one look at an n that was fixed before; 0 without successes.
    """
    from scipy.special import betaincinv

    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(n))
    bound = betaincinv(np.maximum(k, 1), n - k + 1, alpha)
    return np.where(k == 0, 0.0, bound)


def upper_bound(successes: ArrayLike, n: ArrayLike, alpha: float) -> Array:
    """The share that is not exceeded with confidence 1 - alpha; the other end of `lower_bound`."""
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(n))
    return 1 - lower_bound(n - k, n, alpha)


def binomial_test(successes: ArrayLike, n: ArrayLike) -> Array:
    """The exact two-sided p-value of successes among n at even odds; 1 without any n."""
    from scipy.special import betainc

    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(n))
    most = np.maximum(k, n - k)
    tail = betainc(np.maximum(most, 1), n - most + 1, 0.5)
    return np.where(n == 0, 1.0, np.minimum(2 * tail, 1.0))


def log_wealth(successes: ArrayLike, n: ArrayLike, share: ArrayLike) -> Array:
    """Logarithm of what a bettor against "the true share is at most this one" has made of 1.

    The bettor spreads the stake evenly over all larger shares: a beta-binomial mixture cut at the
    null. Under the null, wealth is a supermartingale, and so ever reaches 1 / alpha with a
    probability of at most alpha (Ville's inequality), however often one looks (Robbins 1970;
    Waudby-Smith and Ramdas 2024). It never rises with the share.
    """
    from scipy.special import betaincc, betaln

    k, n, p = np.broadcast_arrays(
        np.asarray(successes, float), np.asarray(n, float), np.asarray(share, float)
    )
    # At a share of 0 or 1 the logarithms below are infinite; nothing is ever sure there.
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    with np.errstate(divide="ignore"):
        above = np.log(betaincc(k + 1, n - k + 1, inside))
    won = betaln(k + 1, n - k + 1) + above - np.log1p(-inside)
    return np.asarray(won - k * np.log(inside) - (n - k) * np.log1p(-inside))


def lower_sequence(successes: ArrayLike, n: ArrayLike, alpha: float) -> Array:
    """The share that is exceeded with confidence 1 - alpha over all looks together.

    The lower ends of an anytime-valid confidence sequence, rounded downward: one may stop whenever
    one likes. 0 where nothing is known.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    low, high = np.zeros(k.shape), k / np.maximum(n, 1)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        sure = log_wealth(k, n, middle) >= -log(alpha)
        low, high = np.where(sure, middle, low), np.where(sure, high, middle)
    return np.asarray(low)


def fewest(share: float, alpha: float, *, sequential: bool) -> int:
    """How many successes without a failure show that a share is exceeded; raises BudgetError."""
    most = 1
    while not _shown(most, share, alpha, sequential):
        most *= 2
        if most > _MOST:
            raise BudgetError(
                f"not even {_MOST:,} equal draws show a share above {share:.12g} at alpha "
                f"{alpha:g}; ask for less"
            )
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (
            (least, middle) if _shown(middle, share, alpha, sequential) else (middle, most)
        )
    return most


def _shown(n: int, share: float, alpha: float, sequential: bool) -> bool:
    if sequential:
        return bool(log_wealth(n, n, share) >= -log(alpha))
    return bool(lower_bound(n, n, alpha) > share)
