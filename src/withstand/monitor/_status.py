"""How the promises stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..stats import Interval
from ._figures import share
from .slo import SLIS, Burn, Sli, Slo, Tally, burns, unreachable
from .store import BUCKET, Bucket, Counts, Store

_HOUR, _DAY = 3600, 86_400


@dataclass(frozen=True, kw_only=True)
class SloStatus:
    """How a promise stands at one time.

    interval: of the SLI over the SLO's days, 95 %; n 0 is no data. bad: bad events in them.
    allowed: how many there may be. budget_left: the share of them that is left, below 0 where more
    were spent, None for no data. burns: every rule and its burn rates. unreachable: rules that can
    never fire, in words. series: by the hour within two days, by the day before.
    """

    slo: Slo
    sli: Sli
    interval: Interval
    bad: int
    allowed: float
    budget_left: float | None
    burns: tuple[Burn, ...]
    unreachable: tuple[str, ...]
    series: tuple[Bucket, ...]

    @property
    def value(self) -> float:
        """The SLI, NaN for no data."""
        return self.interval.value

    @property
    def low(self) -> float:
        """The lower end of its interval."""
        return self.interval.low

    @property
    def high(self) -> float:
        """The upper end of its interval."""
        return self.interval.high

    @property
    def n(self) -> int:
        """Events that it is a share of."""
        return self.interval.n

    @property
    def firing(self) -> tuple[str, ...]:
        """Names of the rules that fire."""
        return tuple(one.rule.name for one in self.burns if one.fires)

    @property
    def verdict(self) -> str:
        """In words: no data, kept, burning, or spent."""
        if self.budget_left is None:
            return "no data"
        if self.budget_left < 0:
            return "spent"
        return "burning" if self.firing else "kept"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "slo": self.slo.name,
            "sli": self.sli.id,
            "name": self.sli.name,
            "model": self.slo.model,
            "objective": self.slo.objective,
            "budget": self.slo.budget,
            "days": self.slo.days,
            "bad": self.bad,
            "allowed": self.allowed,
            "budget_left": self.budget_left,
            "verdict": self.verdict,
            "firing": list(self.firing),
            "rules": [
                {
                    "rule": one.rule.name,
                    "severity": one.rule.severity,
                    "above": one.above,
                    "long": one.long,
                    "short": one.short,
                    "fires": one.fires,
                }
                for one in self.burns
            ],
            "unreachable": list(self.unreachable),
            **self.interval.to_dict(),
        }


def status(store: Store, slos: Iterable[Slo], now: float) -> list[SloStatus]:
    """How each promise stands at a time (seconds since 1970)."""
    counts = Counts(store)
    return [_one(counts, slo, now) for slo in slos]


def _one(counts: Counts, slo: Slo, now: float) -> SloStatus:
    sli = SLIS[slo.sli]
    # The minute that is not over counts as well: a storm is not waited out.
    until = (now // BUCKET + 1) * BUCKET
    buckets = counts.buckets(slo.sli, slo.model, since=now - slo.seconds, until=until)
    events, bad = sum(one.events for one in buckets), sum(one.bad for one in buckets)
    allowed = slo.allowed(events)
    # A count budget is untouched only as far as somebody has looked.
    left = None if not events else 1 - bad / allowed
    recent = counts.buckets(slo.sli, slo.model, since=now - 3 * _DAY - _HOUR, until=until)
    return SloStatus(
        slo=slo,
        sli=sli,
        interval=share(sli, events, bad),
        bad=bad,
        allowed=allowed,
        budget_left=left,
        burns=tuple(burns(slo, Tally(recent), until)),
        unreachable=tuple(unreachable(slo)),
        series=tuple(_series(buckets, now)),
    )


def _series(buckets: list[Bucket], now: float) -> list[Bucket]:
    found: dict[int, list[int]] = {}
    for one in buckets:
        width = _HOUR if one.start >= now - 2 * _DAY else _DAY
        place = found.setdefault(one.start // width * width, [0, 0])
        place[0] += one.events
        place[1] += one.bad
    return [Bucket(start, *told) for start, told in sorted(found.items())]
