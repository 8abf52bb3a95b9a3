"""Random rows within the ranges of a table: what a rule is worth shows in whether they break it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Capability, Feature

Array = NDArray[Any]


def random_rows(capability: Capability, count: int, ends: tuple[Array, Array]) -> Array:
    """Rows (count, F), float64, in their ranges and on their grids, that know of no relation.

    ends: the least and the largest value (F,) of each feature. A third of the values are at an end,
    where rules break; what is derived is computed. The same rows for the same arguments.
    """
    draw = np.random.default_rng(0)
    low, high = ends
    rows = np.empty((count, len(capability.features)))
    for place, one in enumerate(capability.features):
        rows[:, place] = _drawn(one, draw, count, low[place], high[place])
    for group in capability.choices:
        places = [capability.index[name] for name in group.columns]
        rows[:, places] = np.arange(len(places)) == draw.integers(0, len(places), count)[:, None]
    return capability.derive(rows.astype(np.float32))


def _drawn(one: Feature, draw: np.random.Generator, count: int, low: Any, high: Any) -> Array:
    if one.values is not None:
        return np.asarray(draw.choice(np.asarray(one.values), count))
    if not (np.isfinite(low) and np.isfinite(high)):
        return np.full(count, np.nan)
    # Amounts are skewed: as often small as large.
    share = draw.random(count) ** np.where(draw.random(count) < 0.5, 1.0, 4.0)
    found = low + (high - low) * share
    kind = draw.random(count)
    found = np.where(kind < 0.17, low, np.where(kind < 0.34, high, found))
    grid = one.step or float(one.integer)
    if grid:
        found = np.clip(np.rint(found / grid) * grid, low, high)
    return np.asarray(found)
