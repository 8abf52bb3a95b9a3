"""McNemar's test."""

from __future__ import annotations

from math import comb


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test (1947), one-sided: how likely chance alone gives the first this lead.

    only_first, only_second: samples on which just one of the two succeeded. The p-value; 1 without
    any such sample.
    """
    n = only_first + only_second
    return float(sum(comb(n, k) for k in range(only_first, n + 1)) / 2**n)
