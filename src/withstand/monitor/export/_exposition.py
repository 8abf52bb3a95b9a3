"""The monitor's figures, for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .._figures import figures
from .._status import status
from ..slo import Slo
from ..store import Alerts, Counts, Store

_BY_SLO = ("sli", "slo", "model")


class Exposition:
    """Collects events of SLOs, figures, alerts and how the monitor itself is.

    Labels are what the operator has named, never keys, fingerprints or what clients send. latest:
    the newest bad request, as `Follower.latest`, which is an exemplar; own: gauges by name, with
    what they mean.
    """

    def __init__(
        self, store: Store, slos: list[Slo], *, clock: Callable[[], float],
        latest: Callable[[], Mapping[str, tuple[str, float]]],
        own: Callable[[], Mapping[str, tuple[str, Mapping[str, float]]]],
    ) -> None:  # fmt: skip
        self._store, self._slos, self._clock = store, slos, clock
        self._latest, self._own = latest, own

    def collect(self) -> Iterator[Metric]:
        """All figures, as prometheus_client asks for them."""
        counts, latest, now = Counts(self._store), self._latest(), self._clock()
        events = CounterMetricFamily("withstand_sli_events", "Events of an SLO.", labels=_BY_SLO)
        worse = CounterMetricFamily("withstand_sli_bad", "Bad events of an SLO.", labels=_BY_SLO)
        for slo in self._slos:
            values = [slo.sli, slo.name, slo.model]
            all_of_them, bad = counts.total(slo.sli, slo.model)
            events.add_metric(values, all_of_them)
            told = latest.get(f"{slo.sli} {slo.model}")
            example = None if told is None else Exemplar({"request_id": told[0]}, 1.0, told[1])
            worse.add_metric(values, bad, exemplar=example)
        yield events
        yield worse
        yield from self._promises(now)
        yield from self._indicators(now)
        firing = GaugeMetricFamily(
            "withstand_alerts_firing", "Alerts that hold.", labels=("alertname", "severity")
        )
        holding: dict[tuple[str, str], int] = {}
        for alert in Alerts(self._store).all(open=True, last=100_000):
            if not alert.suppressed:
                key = (alert.name, str(alert.severity))
                holding[key] = holding.get(key, 0) + 1
        for place, n in sorted(holding.items()):
            firing.add_metric(list(place), n)
        yield firing
        for name, (meaning, gauges) in self._own().items():
            labels = ("receiver",) if set(gauges) != {""} else ()
            gauge = GaugeMetricFamily(f"withstand_monitor_{name}", meaning, labels=labels)
            for label, value in gauges.items():
                gauge.add_metric([label] if labels else [], value)
            yield gauge

    def _promises(self, now: float) -> Iterator[Metric]:
        left = GaugeMetricFamily(
            "withstand_slo_budget_left_ratio", "Share of the budget that is left.", labels=_BY_SLO
        )
        for one in status(self._store, self._slos, now):
            # No data is no sample: it must not look like a budget that is untouched.
            if one.budget_left is not None:
                left.add_metric([one.slo.sli, one.slo.name, one.slo.model], one.budget_left)
        yield left

    def _indicators(self, now: float) -> Iterator[Metric]:
        names = ("sli", "model", "of")
        value = GaugeMetricFamily("withstand_sli", "An SLI over 30 days.", labels=names)
        low = GaugeMetricFamily("withstand_sli_low", "Its interval's lower end.", labels=names)
        high = GaugeMetricFamily("withstand_sli_high", "Its interval's upper end.", labels=names)
        for one in figures(self._store, now):
            if not one.interval.n and not math.isfinite(one.interval.value):
                continue
            place = [one.sli.id, one.model, one.of]
            for gauge, end in (
                (value, one.interval.value), (low, one.interval.low), (high, one.interval.high),
            ):  # fmt: skip
                if math.isfinite(end):
                    gauge.add_metric(place, end)
        yield from (value, low, high)
