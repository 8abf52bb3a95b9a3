"""The minimum covariance determinant, by steps that concentrate on the closest rows."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError

Array = NDArray[np.float64]

_SMALL, _MERGED, _GROUP = 500, 1500, 300
_TRIALS, _FEW_TRIALS, _BEST = 500, 30, 10
_SHORT, _LONG = 2, 30
_FLAT, _LEAST = 1e-14, 1e-30
_OUTER = 0.025


class Moments(NamedTuple):
    """Mean (F,) and covariance (F, F) of some rows, what whitens (F, F), and the log determinant.

    The determinant is -inf where the rows lie in a plane.
    """

    centre: Array
    covariance: Array
    whitening: Array
    log_det: float


def fast_mcd(rows: Array, support: float | None = None, seed: int = 0) -> tuple[Array, Array]:
    """Centre (F,) and covariance (F, F) of rows (N, F), robust (Rousseeuw and Van Driessen 1999).

    support: the share of rows whose covariance has the least determinant, None for
    (N + F + 1) / 2N. Candidates come from groups of about 300 rows, then from 1,500 and at last
    from all (section 3.3); rows within the 97.5 % quantile of the best are weighed anew, and both
    estimates are made consistent for normal rows (Croux and Haesbroeck 1999). Raises DataError
    where the share does not vary at all.
    """
    from scipy.stats import chi2

    n, features = rows.shape
    held = min(ceil((n + features + 1) / 2), n) if support is None else int(support * n)
    raw = _raw(rows, held, np.random.RandomState(seed))
    if held < n and not raw.covariance.any():
        raise DataError(f"{held} of {n} benign inputs are equal; raise support")
    distances = _distances(rows, raw) / _consistency(features, held / n)
    kept = rows[distances < chi2.isf(_OUTER, features)]
    found = _moments(kept)
    return found.centre, found.covariance * _consistency(features, 1 - _OUTER)


def _raw(rows: Array, held: int, rng: np.random.RandomState) -> Moments:
    n, features = rows.shape
    if features == 1:
        return _narrowest(rows, held)
    if n <= _SMALL:
        drawn = _drawn(rows, held, _FEW_TRIALS, rng)
        return _best(rows, held, _best(rows, held, drawn, _SHORT)[:_BEST], _LONG)[0]
    groups = max(1, n // max(_GROUP, 5 * features))
    size, shuffled = n // groups, rng.permutation(n)
    few, trials = ceil(size * held / n), max(_BEST, _TRIALS // groups)
    found: list[Moments] = []
    for group in range(groups):
        part = rows[shuffled[group * size : (group + 1) * size]]
        found += _best(part, few, _drawn(part, few, trials, rng), _SHORT)[:_BEST]
    some = rows[rng.permutation(n)[:_MERGED]]
    merged = _best(some, ceil(len(some) * held / n), found, _LONG)[:_BEST]
    return _best(rows, held, merged, _LONG)[0]


def _narrowest(rows: Array, held: int) -> Moments:
    """Of one feature: the rows side by side that vary least, which is exact."""
    line = np.sort(rows - rows.mean(0), 0)
    first, second = (np.cumsum(np.r_[0.0, line[:, 0] ** power]) for power in (1, 2))
    sums, squares = (total[held:] - total[:-held] for total in (first, second))
    begin = int(np.argmin(squares - sums**2 / held))
    return _moments(np.sort(rows, 0)[begin : begin + held])


def _drawn(rows: Array, held: int, trials: int, rng: np.random.RandomState) -> Iterable[Moments]:
    return (_moments(rows[rng.permutation(len(rows))[:held]]) for _ in range(trials))


def _best(rows: Array, held: int, starts: Iterable[Moments], steps: int) -> list[Moments]:
    """What each start comes to among these rows, the least determinant first."""
    found = [_concentrated(rows, held, start, steps) for start in starts]
    return sorted(found, key=lambda moments: moments.log_det)


def _concentrated(rows: Array, held: int, now: Moments, steps: int) -> Moments:
    """The moments of the rows that are closest by those before, until the determinant stays."""
    best = np.inf
    for _ in range(steps):
        distances = _distances(rows, now)
        then = _moments(rows[np.argpartition(distances, held - 1)[:held]])
        if then.log_det >= best:
            break
        now, best = then, then.log_det
        if best == -np.inf:
            # No determinant is less.
            break
    return now


def _distances(rows: Array, moments: Moments) -> Array:
    """Squared Mahalanobis distances (N,) of rows (N, F)."""
    white = rows @ moments.whitening
    white -= moments.centre @ moments.whitening
    found: Array = np.einsum("ij,ij->i", white, white)
    return found


def _moments(rows: Array) -> Moments:
    centre = rows.mean(0)
    gaps = rows - centre
    covariance = gaps.T @ gaps / len(rows)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return Moments(centre, covariance, _across(covariance), -np.inf)
    pivots = factor.diagonal()
    if pivots.min() ** 2 <= _FLAT * pivots.max() ** 2:
        return Moments(centre, covariance, _across(covariance), -np.inf)
    return Moments(centre, covariance, np.linalg.inv(factor).T, 2 * float(np.log(pivots).sum()))


def _across(covariance: Array) -> Array:
    """What whitens rows in a plane, and takes others for as good as infinitely far from it."""
    values, vectors = np.linalg.eigh(covariance)
    scale: Array = vectors * np.maximum(values, max(_FLAT * values[-1], _LEAST)) ** -0.5
    return scale


def _consistency(features: int, share: float) -> float:
    """What the covariance of the innermost share of normal rows is too small by."""
    from scipy.stats import chi2

    return float(share / chi2.cdf(chi2.ppf(share, features), features + 2)) if share < 1 else 1.0
