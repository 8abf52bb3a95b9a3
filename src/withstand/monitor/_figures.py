"""What the ten indicators are at present."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from ..stats import Interval, clopper_pearson, quantile_interval
from .slo import SLIS, Sli
from .store import Counts, Moments, Observations, Store

DAY = 86_400.0
_CONFIDENCE_SECONDS = 3600.0
_LAST = 200
_NO_DATA = Interval(value=math.nan, low=math.nan, high=math.nan, n=0)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An indicator with its 95 % interval; n 0 is no data, which is neither 0 nor good.

    bad: events that count against a share, None for another figure. model: empty for all.
    of: which of several figures of the indicator it is, or empty.
    """

    sli: Sli
    model: str
    interval: Interval
    bad: int | None = None
    of: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "sli": self.sli.id,
            "name": self.sli.name,
            "model": self.model,
            "of": self.of,
            "unit": self.sli.unit,
            "bad": self.bad,
            **self.interval.to_dict(),
        }


def share(sli: Sli, events: int, bad: int) -> Interval:
    """The share that an SLI is of so many events (Clopper and Pearson)."""
    counted = events - bad if sli.better == "high" else bad
    return clopper_pearson(counted, events)


def figures(store: Store, now: float, *, days: float = 30.0, model: str = "") -> list[Figure]:
    """All indicators: shares over so many days, others from the newest values that there are."""
    counts, seen = Counts(store), Observations(store)
    found: list[Figure] = []
    for sli in SLIS.values():
        if sli.kind == "share":
            buckets = counts.buckets(sli.id, model, since=now - days * DAY, until=now + 60)
            events, bad = sum(one.events for one in buckets), sum(one.bad for one in buckets)
            interval = share(sli, events, bad)
            found.append(Figure(sli=sli, model=model, interval=interval, bad=bad))
        elif sli.id == "M4":
            values = counts.moments(now - _CONFIDENCE_SECONDS, now + 60)
            for name in (model,) if model else sorted(values) or ("",):
                moments = values.get(name, Moments())
                found.append(Figure(sli=sli, model=name, interval=variance(moments)))
        elif sli.id in ("M8", "M9"):
            told = seen.of(sli.id, now - days * DAY, last=_LAST)
            times = [
                one.value for one in told if one.value is not None and model in ("", one.model)
            ]
            found.append(Figure(sli=sli, model=model, interval=median(times)))
        else:
            found += _reported(sli, seen)
    return found


def variance(moments: Moments) -> Interval:
    """The variance of values from their sums of powers, with its large-sample interval."""
    n = moments.n
    if n < 2:
        return _NO_DATA
    m = [one / n for one in moments[1:]]
    mean = m[0]
    second = max(0.0, m[1] - mean**2)
    fourth = max(0.0, m[3] - 4 * mean * m[2] + 6 * mean**2 * m[1] - 3 * mean**4)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(max(0.0, fourth - second**2) / n)
    value = second * n / (n - 1)
    return Interval(value=value, low=max(0.0, value - half), high=value + half, n=n)


def median(values: list[float]) -> Interval:
    """The median with its distribution-free interval, whose ends few values cannot bound."""
    return quantile_interval(values, 0.5) if values else _NO_DATA


def _reported(sli: Sli, seen: Observations) -> list[Figure]:
    """The newest of each figure that a file has told."""
    newest = {one.labels.get("of", ""): one for one in seen.of(sli.id, last=_LAST)}
    if not newest:
        return [Figure(sli=sli, model="", interval=_NO_DATA)]
    found = []
    for of, one in sorted(newest.items()):
        value = math.nan if one.value is None else one.value
        low, high = (float(one.labels.get(end, value)) for end in ("low", "high"))
        n = int(one.labels.get("n", "0"))
        interval = Interval(value=value, low=low, high=high, n=n)
        found.append(Figure(sli=sli, model="", interval=interval, of=of))
    return found
