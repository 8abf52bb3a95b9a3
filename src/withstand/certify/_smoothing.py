"""Randomised smoothing (Cohen et al. 2019): what is asked, and what votes under noise prove."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from .._errors import BudgetError, ThreatError
from ..stats import fewest, log_wealth, lower_bound, lower_sequence

Array = NDArray[Any]

# To stop on an input that will not be certified costs no validity, only now and then a certificate.
_GIVE_UP = 0.01
_FIRST, _GROWTH = 16, 1.1
# Where in an interval of the wanted width the estimate may lie.
_SPLITS = np.linspace(0.3, 0.8, 11)


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Certify the smoothed classifier: the model's most frequent answer under Gaussian noise.

    sigma: the noise's standard deviation in units of raw input; noise leaves the model's domain.
    alpha: the probability that one certificate is wrong. draws: the most for each input, after
    `select` of them that choose the answer. sequential: stop an input as soon as it is settled
    which of `radii` it withstands, the threat's own among them; with a tolerance, as soon as its
    radius is known that well or lies outside of all. Else all inputs get all draws
    (Clopper-Pearson). radii and tolerance are in the threat's norm; batch: rows asked at once.
    Raises BudgetError for what can prove nothing.
    """

    sigma: float
    alpha: float = 0.001
    draws: int = 100_000
    select: int = 100
    sequential: bool = True
    radii: tuple[float, ...] = ()
    tolerance: float | None = None
    seed: int = 0
    batch: int = 250

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(sorted(float(radius) for radius in self.radii)))
        for name in ("sigma", "tolerance"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise BudgetError(f"{name} is {value:g}; give a finite number above 0")
        if not 0 < self.alpha < 0.5:
            raise BudgetError(f"alpha is {self.alpha:g}; give more than 0 and less than 0.5")
        for name in ("draws", "select", "batch"):
            if getattr(self, name) < 1:
                raise BudgetError(f"{name} is {getattr(self, name)}; give at least 1")
        if not -(2**63) <= self.seed < 2**63:
            raise BudgetError(f"seed is {self.seed}; give a number of at most 63 bits")
        if any(not radius > 0 for radius in self.radii):
            raise BudgetError(f"radii are {self.radii}; each is more than 0")


def scale(norm: str, features: int) -> float:
    """The L2 length that contains the unit ball of a norm; raises ThreatError for L0."""
    if norm == "l0":
        raise ThreatError(
            "threat norm is l0, which Gaussian noise certifies nothing for; use l2, l1 or linf"
        )
    return sqrt(features) if norm == "linf" else 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """When the votes on an input are enough, and the radius that they prove.

    radii: (N, G), rising, those to be settled for each input; length: the L2 length that contains
    the unit ball of their norm.
    """

    settings: Smoothing
    radii: Array
    length: float

    def __post_init__(self) -> None:
        settings, least = self.settings, float(self.radii.min())
        share = float(self._shares(self.radii.min()))
        needed = fewest(share, settings.alpha, sequential=settings.sequential)
        if settings.draws < needed:
            raise BudgetError(
                f"draws is {settings.draws}: even if all agree they do not prove the radius "
                f"{least:.4g} at alpha {settings.alpha:g} and sigma {settings.sigma:g}; give at "
                f"least {needed:,}"
            )

    def _shares(self, radii: Array) -> Array:
        """The share of votes above which a radius is proven (Cohen et al. 2019, theorem 1)."""
        return np.asarray(ndtr(radii * self.length / self.settings.sigma))

    def next_look(self, n: Array) -> Array:
        """The numbers of draws (B,) at which to look after n of them: always the same steps."""
        if not self.settings.sequential:
            return np.full_like(n, self.settings.draws)
        steps = (n * _GROWTH).astype(int) + 1
        return np.asarray(np.minimum(np.maximum(steps, _FIRST), self.settings.draws))

    def settled(self, rows: Array, votes: Array, n: Array) -> Array:
        """Whether inputs (B,) with votes for their answer among n draws need no more."""
        if not self.settings.sequential:
            return np.asarray(n >= self.settings.draws)
        shares = self._shares(self.radii[rows])
        k, n = votes[:, None], n[:, None]
        proven = log_wealth(k, n, shares) >= -log(self.settings.alpha)
        refuted = log_wealth(n - k, n, 1 - shares) >= -log(_GIVE_UP)
        done = n[:, 0] >= self.settings.draws
        if self.settings.tolerance is None:
            return np.asarray(done | (proven | refuted).all(1))
        outside = proven.all(1) | refuted.all(1)
        return np.asarray(done | outside | self._narrow(k, n, self.settings.tolerance))

    def _narrow(self, votes: Array, n: Array, tolerance: float) -> Array:
        """Whether the radius surely lies in one of some intervals as wide as the tolerance."""
        below = self._radius(votes / n) - tolerance * _SPLITS
        above = log_wealth(votes, n, self._shares(below)) >= -log(self.settings.alpha)
        share = 1 - self._shares(below + tolerance)
        return np.asarray((above & (log_wealth(n - votes, n, share) >= -log(_GIVE_UP))).any(1))

    def _radius(self, share: Array) -> Array:
        return np.asarray(ndtri(share) * self.settings.sigma / self.length)

    def radius(self, rows: Array, votes: Array, n: Array) -> Array:
        """The radius (B,) that votes prove, 0 where they prove not even the answer."""
        settings = self.settings
        if not settings.sequential:
            share = lower_bound(votes, n, settings.alpha)
            return np.asarray(np.maximum(self._radius(share), 0.0))
        share = lower_sequence(votes, n, settings.alpha)
        # The sequence is rounded downward; a radius that was proven by itself stays so.
        radii = self.radii[rows]
        evidence = log_wealth(votes[:, None], n[:, None], self._shares(radii))
        proven = np.where(evidence >= -log(settings.alpha), radii, 0.0).max(1)
        return np.asarray(np.maximum(self._radius(share), proven))


def hopeless(votes: Array, n: int) -> Array:
    """Whether the most frequent answer of a few draws is surely no majority's."""
    return np.asarray(1 - lower_bound(n - votes, n, _GIVE_UP) < 0.5)


def rule(settings: Smoothing, norm: str, eps: Array, features: int) -> Rule:
    """The rule for inputs with these radii (N,) of a norm; raises ThreatError."""
    length = scale(norm, features)
    if not np.isfinite(eps).all():
        raise ThreatError("the threat has no finite radius to certify; give its region one")
    wanted = np.broadcast_to(np.asarray(settings.radii), (len(eps), len(settings.radii)))
    radii = np.sort(np.concatenate((eps[:, None], wanted), 1), 1)
    return Rule(settings=settings, radii=radii, length=length)
