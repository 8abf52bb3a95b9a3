"""By how much one share exceeds another."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from ._intervals import Interval


def difference(first: Interval, second: Interval) -> Interval:
    """The first share minus the second, of independent samples (Newcombe 1998, method 10)."""
    value = first.value - second.value
    below = sqrt((first.value - first.low) ** 2 + (second.high - second.value) ** 2)
    above = sqrt((first.high - first.value) ** 2 + (second.value - second.low) ** 2)
    n = min(first.n, second.n)
    return Interval(value=value, low=max(value - below, -1), high=min(value + above, 1), n=n)


def paired_difference(only_first: int, only_second: int, n: int, confidence: float) -> Interval:
    """The first share minus the second on the same n samples (Tango 1998's score interval).

    only_first, only_second: samples of which just one of the two holds.
    """
    value = (only_first - only_second) / n
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def end(inner: float, outer: float) -> float:
        for _ in range(60):
            middle = (inner + outer) / 2
            if abs(_score(only_first, only_second, n, middle)) <= z:
                inner = middle
            else:
                outer = middle
        return (inner + outer) / 2

    return Interval(value=value, low=end(value, -1.0), high=end(value, 1.0), n=n)


def _score(first: int, second: int, n: int, gap: float) -> float:
    """How many standard errors the observed difference lies from the gap (eq. 26)."""
    b = -first - second + (2 * n - first + second) * gap
    c = -second * gap * (1 - gap)
    share = (sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * share + gap * (1 - gap))
    distance = first - second - n * gap
    if variance <= 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / sqrt(variance)
