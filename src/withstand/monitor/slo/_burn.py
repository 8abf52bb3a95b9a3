"""Whether rules fire, from counts of good and bad events alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from ._slo import RULES, Rule, Slo


class Tally:
    """Counts of events over time, of which every window is asked in logarithmic time.

    buckets: (start in seconds, events, bad), in any order. A bucket counts for a window in which it
    starts.
    """

    def __init__(self, buckets: Iterable[tuple[float, int, int]]) -> None:
        found = sorted(buckets)
        self._starts = [start for start, _, _ in found]
        self._events = [0, *accumulate(events for _, events, _ in found)]
        self._bad = [0, *accumulate(bad for _, _, bad in found)]

    def within(self, since: float, until: float) -> tuple[int, int]:
        """Events, and bad ones, of the buckets that start within [since, until)."""
        first, last = bisect_left(self._starts, since), bisect_left(self._starts, until)
        last = max(first, last)
        return self._events[last] - self._events[first], self._bad[last] - self._bad[first]


@dataclass(frozen=True, kw_only=True)
class Burn:
    """A rule on an SLO at one time: burn rates of its windows, None for one without events.

    bad: events in the long window. above: what both rates must exceed to fire.
    """

    rule: Rule
    above: float
    long: float | None
    short: float | None
    bad: int
    fires: bool


def burns(slo: Slo, tally: Tally, now: float) -> list[Burn]:
    """All rules on an SLO at a time (seconds, of the buckets' clock); pure, so nothing is kept."""
    found = []
    for rule in RULES:
        above = rule.above(slo)
        rates = []
        for seconds in (rule.long, rule.short):
            events, bad = tally.within(now - seconds, now)
            rates.append(slo.burn(bad, events, seconds))
        long, short = rates
        many = tally.within(now - rule.long, now)[1]
        fires = (
            long is not None and short is not None and long > above and short > above
            and many >= slo.least
        )  # fmt: skip
        found.append(Burn(rule=rule, above=above, long=long, short=short, bad=many, fires=fires))
    return found
