"""A share that is looked at while samples still come in, as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._intervals import Interval, clopper_pearson

Array = NDArray[Any]

_GRID = 64
_ZOOMS = 3
_STEPS = 20
_EDGE = 1e-12
# The prior is 2.4 standard errors wide: as far as a share lies from what 95 % just excludes.
_SPREAD = 6.0


@dataclass(frozen=True, kw_only=True)
class Survey:
    """n samples of which `standing` stand, and of those, in random order, `tried`: `fallen` fell.

    The share asked for is that of a population which stands and would not fall.
    """

    n: int
    standing: int
    tried: int = 0
    fallen: int = 0

    def plausible(self, share: float, confidence: float = 0.95) -> bool:
        """Whether the share is inside the confidence sequence.

        Over all looks together, the true share is outside with probability at most 1 - confidence,
        so that one may stop whenever one likes. The test is the product of two mixture likelihood
        ratios (Robbins 1970; Howard et al. 2021), of those who stand and of those who fall, the
        least over all pairs of shares that give this one (Ville's inequality).
        """
        share = min(max(share, _EDGE), 1 - _EDGE)
        limit, low, high = -log(1 - confidence), share, 1.0
        # The more samples, the narrower the least is; one that a grid missed would narrow the
        # interval.
        for _ in range(_ZOOMS):
            stands = np.linspace(low, high, _GRID)
            against = self._against(stands, share)
            best = int(against.argmin())
            if against[best] < limit:
                return True
            low, high = float(stands[max(best - 1, 0)]), float(stands[min(best + 1, _GRID - 1)])
        return False

    def _against(self, stands: Array, share: float) -> Array:
        """Log of the evidence against each share of those who stand, `share` of all being right."""
        stands = np.clip(stands, _EDGE, 1 - _EDGE)
        falls = np.clip(1 - share / stands, _EDGE, 1 - _EDGE)
        of_standing = _against(stands, self.standing, self.n, self.n / _SPREAD)
        return of_standing + _against(falls, self.fallen, self.tried, 1.0)

    def interval(self, confidence: float = 0.95) -> Interval:
        """The confidence sequence as it is now; before anybody is tried it reaches down to 0."""
        if not self.n:
            return clopper_pearson(0, 0)
        value = self.standing / self.n
        value *= 1 - self.fallen / self.tried if self.tried else 1.0
        # Its evidence is convex in both shares, so the plausible ones are an interval.
        low, high = (self._end(value, far, confidence) for far in (0.0, 1.0))
        return Interval(value=value, low=low, high=high, n=self.n)

    def _end(self, inside: float, far: float, confidence: float) -> float:
        """The end of the interval between a plausible share and a far one, rounded outward."""
        if self.plausible(far, confidence):
            return far
        for _ in range(_STEPS):
            middle = (inside + far) / 2
            if self.plausible(middle, confidence):
                inside = middle
            else:
                far = middle
        return far


def _against(null: Array, successes: int, n: int, weight: float) -> Array:
    """Log of an e-value against each null share: how much better a prior around it predicts.

    weight: of how many samples the prior is worth.
    """
    from scipy.special import betaln

    if not n:
        return np.zeros_like(null)
    a, b = weight * null, weight * (1 - null)
    predicted = betaln(a + successes, b + n - successes) - betaln(a, b)
    return np.asarray(predicted - successes * np.log(null) - (n - successes) * np.log1p(-null))
