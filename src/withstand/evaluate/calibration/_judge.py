"""Whether the present radius fits what was observed, and what a better one costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import ceil, floor, isinf, log10
from operator import and_
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..._errors import ConfigError, DataError
from ...data import Dataset
from ...models import Model
from ...stats import Interval, wilson
from ...threat import L0, L1, L2, Linf, Region, Threat
from .._evaluate import evaluate
from .._report import Report
from ._result import Calibration

Fit = Literal["too tight", "too loose", "fits", "unknown"]
BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


@dataclass(frozen=True, kw_only=True)
class Price:
    """The robust accuracy (upper bound) at a radius, measured `at` it or at the next below."""

    radius: float
    at: float
    robust_accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a present radius compares with the calibrated one, in one norm.

    eps: None where the present region is in another norm. outside: share of the observed changes
    that lie outside the present region, None for unpaired samples. advised: the calibrated radius,
    rounded up. prices: at the present and at the advised radius, empty where nothing is known of
    the model.
    """

    norm: str
    eps: float | None
    fit: Fit
    advised: float
    outside: Interval | None
    prices: tuple[Price, ...]
    meaning: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """The judgement as plain values."""
        return {
            **vars(self),
            "outside": self.outside and self.outside.to_dict(),
            "prices": [
                {**vars(price), "robust_accuracy": price.robust_accuracy.to_dict()}
                for price in self.prices
            ],
        }


def judge(
    calibration: Calibration,
    norm: str,
    eps: float | None,
    *,
    outside: Interval | None = None,
    prices: Sequence[Price] = (),
) -> Judgement:
    """Compare a present radius with the calibrated one: too tight below its interval, too loose
    above it; unknown where no change is more than chance, or without a present radius.
    """
    radius = radius_in(calibration, norm)
    what = "benign data drifts" if calibration.source == "drift" else "observed changes reach"
    ends = f"{norm} {radius.value:.4g} [{radius.low:.4g}, {radius.high:.4g}]"
    best = advised(calibration, norm)
    fit: Fit = "fits"
    if not calibration.moved:
        fit, meaning = "unknown", "no change is more than chance, so nothing speaks for a radius"
        fix = "give more rows, or rows that are known to be attacked"
    elif eps is None:
        fit, meaning = "unknown", f"{what} {ends}, and the present region is in another norm"
        fix = f"set threat.region.norm to {norm} and eps to {best:g}, if that is the threat"
    elif (fit := fits(radius, eps)) == "too tight":
        meaning = f"{what} {ends}, beyond the present {eps:.4g}"
        fix = f"set threat.region.eps to {best:g}"
    elif fit == "too loose":
        meaning = f"{what} only {ends}, and the present is {eps:.4g}"
        fix = f"set threat.region.eps to {best:g}, unless attackers may yet go further"
    else:
        meaning = f"{what} {ends}, and the present {eps:.4g} lies in that interval"
        fix = "none needed"
        if isinf(radius.high):
            meaning += ", which has no upper end"
            fix = f"none needed; with more than {min(calibration.n)} rows the interval has two ends"
    return Judgement(
        norm=norm,
        eps=eps,
        fit=fit,
        advised=best,
        outside=outside,
        prices=tuple(prices),
        meaning=meaning,
        fix=fix,
    )


def fits(radius: Interval, present: float) -> Fit:
    """Too tight below the interval, too loose above it."""
    # Inputs in float32 round a change in its seventh digit.
    if present < radius.low * (1 - 1e-6):
        return "too tight"
    return "too loose" if present > radius.high * (1 + 1e-6) else "fits"


def radius_in(calibration: Calibration, norm: str) -> Interval:
    """The calibrated radius in a norm; raises DataError where there is none."""
    if norm not in calibration.radii:
        raise DataError(
            f"norm {norm} has no radius, because all features are categories; use norm l0"
        )
    return calibration.radii[norm]


def advised(calibration: Calibration, norm: str) -> float:
    """The calibrated radius rounded up to three digits, or to a whole number of features."""
    value = radius_in(calibration, norm).value
    return float(ceil(value)) if norm == "l0" else rounded_up(value)


def rounded_up(value: float) -> float:
    """The radius rounded up to three digits."""
    if not value:
        return 0.0
    digits = 2 - floor(log10(value))
    # A radius that has three digits already is not pushed up by its own rounding error.
    return float(f"{ceil(value * 10**digits * (1 - 1e-12)) / 10**digits:.12g}")


def outside(region: Region, x: ArrayLike, x_adv: ArrayLike) -> Interval:
    """The share of the pairs (n, ...) that differ whose change the region does not contain."""
    a, b = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
    changed = (a != b).reshape(len(a), -1).any(1)
    missed = ~np.asarray(region.contains(a[changed], b[changed]))
    return wilson(int(missed.sum()), int(changed.sum()))


def price(report: Report | Mapping[str, Any], norm: str, radii: Sequence[float]) -> list[Price]:
    """Robust accuracy at radii, from a report's curve or a report.json's content.

    Between two points of the curve the one below is told: accuracy only falls with the radius.
    Raises ConfigError for a report in another norm.
    """
    told = report.to_dict() if isinstance(report, Report) else report
    if told["threat"]["norm"] != norm:
        raise ConfigError(
            f"the report is in norm {told['threat']['norm']}, the radius in {norm}; give a report "
            "in the same norm, or evaluate anew"
        )
    points = [(0.0, told["clean_accuracy"])]
    points += [(float(point["eps"]), point["robust_accuracy"]) for point in told["curve"]]
    own = told["threat"]["eps"]
    if isinstance(own, int | float):
        points.append((float(own), told["robust_accuracy"]))
    points.sort(key=lambda point: point[0])
    found = []
    for radius in radii:
        at, accuracy = [p for p in points if p[0] <= radius * (1 + 1e-9)][-1]
        found.append(Price(radius=radius, at=at, robust_accuracy=Interval(**accuracy)))
    return found


def measure(
    model: Model, data: Dataset, threat: Threat, norm: str, radii: Sequence[float], seed: int = 0
) -> list[Price]:
    """Robust accuracy at radii in a norm, by a smoke evaluation at each."""
    found = []
    for radius in radii:
        report = evaluate(model, data, _in_norm(threat, norm, radius), preset="smoke", seed=seed)
        found.append(Price(radius=radius, at=radius, robust_accuracy=report.robust_accuracy))
    return found


def _in_norm(threat: Threat, norm: str, eps: float) -> Threat:
    balls = tuple(BALLS.values())
    rest = [part for part in threat.region if not isinstance(part, balls)]
    return replace(threat, region=reduce(and_, rest, BALLS[norm](eps)))
