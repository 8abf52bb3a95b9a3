"""How far the distribution of scores has moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._errors import DataError
from ...stats import Interval, bootstrap, stability, stability_by_chance
from ._traffic import FEWEST, Array

_SURE = 0.95
_DRAWS = 500
_MOST_BINS = 100


@dataclass(frozen=True, kw_only=True)
class StabilityIndex:
    """The population stability index of scores against benign ones, 0 where nothing moved.

    value: with its bootstrap interval over the new scores; it leans upward, so it is to be held
    against chance: what 5 % of samples as large exceed where nothing has changed.
    """

    value: Interval
    chance: float
    bins: int

    @property
    def moved(self) -> bool:
        """Whether the distribution surely is another one."""
        return self.value.value > self.chance

    def __str__(self) -> str:
        told = "moved" if self.moved else "not surely moved"
        return (
            f"stability index {self.value.value:.3g} [{self.value.low:.3g}, {self.value.high:.3g}],"
            f" at most {self.chance:.3g} by chance: {told}"
        )


def stability_index(
    benign: Array, scores: Array, *, bins: int = 10, seed: int = 0
) -> StabilityIndex:
    """How far scores (M,) have moved from benign ones (N,), in bins of equally many benign ones.

    As `stats.stability` counts it. For one look at a time: `DriftWatch` may be looked at endlessly.
    Raises DataError for fewer than 300 of either, or scores that are not finite.
    """
    benign, scores = np.asarray(benign, np.float64), np.asarray(scores, np.float64)
    for name, given in (("benign scores", benign), ("scores", scores)):
        if len(given) < FEWEST:
            raise DataError(f"{len(given)} {name} do not tell a drift; give at least {FEWEST}")
        if not np.isfinite(given).all():
            raise DataError(f"{name} are not finite; flag such inputs by themselves")
    if not 2 <= bins <= _MOST_BINS:
        raise DataError(f"bins is {bins}; give 2 to {_MOST_BINS}")
    # Of equal scores several quantiles may be one, and what is above it needs a bin of its own.
    edges = np.unique(np.quantile(benign, np.arange(1, bins) / bins))
    before, now = (np.searchsorted(edges, given) for given in (benign, scores))
    usual = _counts(before, len(edges) + 1)

    def index(places: Array) -> float:
        return stability(usual, _counts(places, len(usual)))

    return StabilityIndex(
        value=bootstrap(now, index, draws=_DRAWS, seed=seed),
        chance=stability_by_chance(len(usual), len(benign), len(scores), 1 - _SURE),
        bins=len(usual),
    )


def _counts(places: Array, bins: int) -> Array:
    return np.bincount(places.astype(np.int64), minlength=bins)
