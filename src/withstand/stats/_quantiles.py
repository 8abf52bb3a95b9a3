"""Confidence intervals for quantiles, and for sums of estimates that have one."""

from __future__ import annotations

from functools import cache
from math import ceil, inf, log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import DataError
from ._intervals import Interval

Array = NDArray[Any]


class Ends(NamedTuple):
    """Estimates with the low and high ends of their intervals, three arrays of one shape."""

    value: Array
    low: Array
    high: Array


@cache
def _rank(n: int, level: float, probability: float) -> float:
    """The fractional rank whose order statistic of n exceeds the quantile with this probability.

    Infinite where even the largest of n does so more rarely, or the smallest more often.
    """
    from scipy.special import betainc

    def exceeds(rank: float) -> float:
        return float(1 - betainc(rank, n + 1 - rank, level))

    if exceeds(1) > probability:
        return -inf
    if exceeds(n) < probability:
        return inf
    low, high = 1.0, float(n)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if exceeds(middle) > probability else (middle, high)
    return (low + high) / 2


def quantile_ends(
    values: ArrayLike, level: float, *, confidence: float = 0.95, whole: bool = False
) -> Ends:
    """The quantile of each column of values (n, ...), median-unbiased, with its interval.

    Distribution-free: order statistics at fractional ranks (Hutson 1999), which is where a
    percentile bootstrap of endless draws goes. An end that n values cannot bound is infinite, and
    the other one then takes the whole error. whole: values on a grid are not interpolated, so that
    the interval covers at least as promised. Raises DataError for too few values.
    """
    data = np.sort(np.asarray(values, np.float64), axis=0)
    n, tail = len(data), (1 - confidence) / 2
    if n < (least := enough(level, 0.0)):
        raise DataError(
            f"{n} values cannot tell their {100 * level:g} % quantile; give at least {least}, or "
            "ask for a quantile nearer to the median"
        )
    middle, low, high = (_rank(n, level, p) for p in (0.5, tail, 1 - tail))
    if high == inf:
        low = _rank(n, level, 2 * tail)
    elif low == -inf:
        high = _rank(n, level, 1 - 2 * tail)
    if whole:
        middle, low, high = (_rounded(rank, up) for rank, up in ((middle, 1), (low, 0), (high, 1)))
    return Ends(*(_at(data, rank) for rank in (middle, low, high)))


def quantile_interval(
    values: ArrayLike, level: float, *, confidence: float = 0.95, whole: bool = False
) -> Interval:
    """`quantile_ends` of one column of values (n,)."""
    data = np.asarray(values, np.float64)
    value, low, high = quantile_ends(data, level, confidence=confidence, whole=whole)
    return Interval(value=float(value), low=float(low), high=float(high), n=len(data))


def enough(level: float, confidence: float = 0.95) -> int:
    """The fewest values whose quantile at this level has an interval with two finite ends.

    With confidence 0 it is the fewest that give an estimate at all.
    """
    if not 0 < level < 1 or not 0 <= confidence < 1:
        raise DataError(f"level {level} and confidence {confidence} must lie between 0 and 1")
    return ceil(log((1 - confidence) / 2) / log(max(level, 1 - level)) - 1e-9)


def weighted_sum(weights: ArrayLike, ends: Ends, correlation: ArrayLike | None = None) -> Ends:
    """The sum of estimates (k,) times weights, with its interval (Zou and Donner 2008, eq. 8).

    correlation: of the estimates (k, k); independent if not given.
    """
    w = np.asarray(weights, np.float64)
    between = np.eye(len(w)) if correlation is None else np.asarray(correlation, np.float64)
    down = np.where(w > 0, ends.value - ends.low, ends.high - ends.value)
    up = np.where(w > 0, ends.high - ends.value, ends.value - ends.low)
    value = np.asarray(w @ ends.value)
    return Ends(value, value - _length(w, down, between), value + _length(w, up, between))


def _length(weights: Array, deviation: Array, correlation: Array) -> float:
    if np.isinf(deviation[weights != 0]).any():
        return inf
    parts = weights * np.where(weights == 0, 0.0, deviation)
    return float(np.sqrt(max(float(parts @ correlation @ parts), 0.0)))


def _rounded(rank: float, up: int) -> float:
    return rank if np.isinf(rank) else float(np.ceil(rank) if up else np.floor(rank))


def _at(data: Array, rank: float) -> Array:
    """The order statistics of sorted columns (n, ...) at a rank from 1, linear between ranks."""
    if np.isinf(rank):
        return np.full(data.shape[1:], rank)
    # Ranks are found by halving, and a value beside them may be infinite.
    rank = round(rank, 9)
    first, second = data[int(rank) - 1], data[int(np.ceil(rank)) - 1]
    with np.errstate(invalid="ignore"):
        between = first + (rank - int(rank)) * (second - first)
    return np.asarray(np.where(first == second, first, between))
