"""What was at stake, what got through, and for whom that pays."""

from __future__ import annotations

from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import Interval, wilson
from ._business import Money
from ._share import weighted_share

Array = NDArray[Any]


def known_stakes(before: Array, after: Array) -> Array:
    """The rows (N,) whose stakes (N,) before and after are numbers of at least 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(before) & np.isfinite(after) & (before >= 0) & (after >= 0))


def money_of(
    before: Array,
    after: Array,
    correct: Array,
    fooled: Array,
    cost: Array | None,
    spent: Array | None,
    groups: Array | None = None,
) -> Money:
    """The sums over rows (N,): their stakes before and after, and what an attack on each costs.

    spent: the part of the cost that the stake after an attack does not show already. groups: whose
    row each is.
    """
    known = known_stakes(before, after)
    caught, through = known & correct, known & fooled
    paying = through & (after > spent) if spent is not None else through
    own = None if groups is None else groups[caught]
    return Money(
        at_stake=fsum(before[known]),
        caught=fsum(before[caught]),
        passed=fsum(before[through]),
        passed_changed=fsum(after[through]),
        rate=weighted_share(before[caught], fooled[caught], groups=own),
        cost=None if cost is None else fsum(cost[through]),
        paying=None if cost is None else _counted(paying[caught], own),
        profit=None if spent is None else fsum((after - spent)[paying]),
        unknown=int((~known).sum()),
        groups=None if own is None else len(np.unique(own)),
    )


def _counted(hits: Array, groups: Array | None) -> Interval:
    """The share of rows (n,) that are hit."""
    if groups is None:
        return wilson(int(hits.sum()), len(hits))
    return weighted_share(np.ones(len(hits)), hits, groups=groups)
