"""What gets through within less than the whole threat."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import wilson
from ._business import BudgetPoint
from ._money import known_stakes
from ._share import weighted_share

Array = NDArray[Any]
_POINTS = 40


def cost_limits(spent: Array, most: float | None) -> list[float]:
    """Limits on the cost of a row, from nothing to the threat's own or a little above all found."""
    largest = float(np.max(spent, initial=0.0))
    if not largest > 0:
        return []
    top = largest if most is None else min(most, 1.25 * largest)
    return [float(limit) for limit in np.linspace(0, top, _POINTS + 1)]


def budget_points(
    limits: Iterable[float],
    taken: Array,
    correct: Array,
    fooled: Array,
    stakes: tuple[Array, Array] | None,
    groups: Array | None = None,
) -> tuple[BudgetPoint, ...]:
    """A point for each limit on what was taken (N,) to fool each row; stakes: before and after.

    groups: whose row each is, for the share of the money.
    """
    n, right = len(fooled), int(correct.sum())
    known = correct & known_stakes(*stakes) if stakes is not None else correct
    weights = None if stakes is None else stakes[0]
    own = None if groups is None else groups[known]
    found = []
    for limit in limits:
        hit = fooled & (taken <= limit)
        rate = None if weights is None else weighted_share(weights[known], hit[known], groups=own)
        found.append(
            BudgetPoint(
                limit=float(limit),
                fooling_rate=wilson(int(hit.sum()), right),
                robust_accuracy=wilson(right - int(hit.sum()), n),
                money_rate=rate,
                passed=None if weights is None else fsum(weights[known & hit]),
            )
        )
    return tuple(found)
