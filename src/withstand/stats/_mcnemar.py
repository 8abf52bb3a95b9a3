"""McNemar's test."""

from __future__ import annotations


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test (1947), one-sided: how likely chance alone gives the first this lead.

    only_first, only_second: samples on which just one of the two succeeded. The p-value; 1 without
    any such sample.
    """
    from scipy.special import betainc

    if not only_first:
        return 1.0
    # The binomial's upper tail.
    return float(betainc(only_first, only_second + 1, 0.5))
