"""Confidence intervals for shares and for other statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isinf, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate from n samples with the ends of its confidence interval."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """The four figures; one without data or without a bound is null, never a number."""
        return {
            "value": _number(self.value),
            "low": _number(self.low),
            "high": _number(self.high),
            "n": self.n,
        }

    def __str__(self) -> str:
        if self.n == 0:
            return "no data"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def in_units(self, digits: int = 3) -> str:
        """The figures of what is no share; an end that is not bounded is said to be so."""
        if self.n == 0:
            return "no data"
        high = "no upper end" if isinf(self.high) else f"{self.high:.{digits}g}"
        return f"{self.value:.{digits}g} [{self.low:.{digits}g}, {high}]"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


_NO_DATA = Interval(value=nan, low=nan, high=nan, n=0)


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927), good at small n and near 0 and 1."""
    if n == 0:
        return _NO_DATA
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(value=share, low=low, high=high, n=n)


def mean_within(values: ArrayLike, lowest: float, highest: float) -> Interval:
    """The interval of the mean of values (n,) that never leave the range lowest to highest.

    Wilson's, of the mean as a share of the range: no variable within it varies more than one that
    has only its two ends. Unlike a bootstrap it is no point where all values seen are equal.
    """
    data, span = np.asarray(values, np.float64), highest - lowest
    if not data.size or not span:
        value = lowest if data.size else nan
        return Interval(value=value, low=value, high=value, n=data.size)
    share = wilson(float(((data - lowest) / span).sum()), len(data))
    low, high = lowest + span * share.low, lowest + span * share.high
    return Interval(value=float(data.mean()), low=low, high=high, n=len(data))


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval of a share (Clopper and Pearson 1934): never covers less than promised."""
    from scipy.special import betaincinv

    if n == 0:
        return _NO_DATA
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(value=successes / n, low=low, high=high, n=n)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[Any], float] = np.mean,
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of the values (n, ...), seeded.

    Draws of which the statistic is NaN are left out.
    """
    data = np.asarray(values, np.float64)
    if data.size == 0:
        return _NO_DATA
    rng = np.random.default_rng(seed)
    drawn = [statistic(data[rng.integers(0, len(data), len(data))]) for _ in range(draws)]
    known = [value for value in drawn if not np.isnan(value)] or [nan]
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=float(statistic(data)), low=float(low), high=float(high), n=len(data))
