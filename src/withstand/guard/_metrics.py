"""What is counted and timed, for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "requests": ("Requests by model, tenant and status.", ("model", "tenant", "status")),
    "decisions": ("Inferences by decision and action.", ("model", "decision", "action")),
    "refused": ("Requests that the model did not answer, by reason.", ("reason",)),
    "flags": ("Flags by sensor.", ("sensor",)),
    "sensor_failures": ("Sensors that gave no score, by why.", ("sensor", "why")),
    "evidence_lost": ("Decisions that left no record.", ()),
    "reloads": ("New configurations, by what became of them.", ("result",)),
    "uninspected": ("Observed requests that there was no time to look at.", ()),
}
_TIMES = {
    "added_latency": "Time that the guard adds.",
    "upstream_latency": "Time that the model takes.",
}
_GAUGES = {
    "connections": "Clients' connections.",
    "in_flight": "Requests under way.",
    "loop_lag_seconds": "How late the event loop is.",
    "killed": "Whether inspection is switched off.",
    "mitigations": "Actions that were ordered and hold.",
    "unchecked": "Models in shadow or enforce whose requests no rule checks.",
}


class Metrics:
    """The guard's own figures: counts by labels, and how long things take, as plain numbers.

    Labels are of things that the operator has named, never of keys or inputs: their number must not
    grow with what clients send. gauges: by names of _GAUGES, read when somebody asks. `registry`
    makes the exposition.
    """

    def __init__(self) -> None:
        self.counts: dict[str, defaultdict[tuple[str, ...], int]] = {
            name: defaultdict(int) for name in _COUNTERS
        }
        self._times = {name: [0] * (len(_SECONDS) + 1) for name in _TIMES}
        self._sums = dict.fromkeys(_TIMES, 0.0)
        self.gauges: dict[str, Callable[[], float]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def count(self, name: str, *labels: str) -> None:
        """One more of a counter, by the values of its labels."""
        self.counts[name][labels] += 1

    def time(self, name: str, seconds: float) -> None:
        """How long something took."""
        self._times[name][bisect_left(_SECONDS, seconds)] += 1
        self._sums[name] += seconds

    def collect(self) -> Iterator[Metric]:
        """All figures, as prometheus_client asks for them."""
        for name, (told, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(f"withstand_{name}", told, labels=labels)
            for values, count in sorted(self.counts[name].items()):
                counter.add_metric(values, count)
            if not labels and not self.counts[name]:
                counter.add_metric((), 0)
            yield counter
        for name, told in _TIMES.items():
            histogram = HistogramMetricFamily(f"withstand_{name}_seconds", told)
            total, buckets = 0, []
            for end, count in zip((*_SECONDS, "+Inf"), self._times[name], strict=True):
                total += count
                buckets.append((str(end), total))
            histogram.add_metric([], buckets, self._sums[name])
            yield histogram
        for name, value in self.gauges.items():
            gauge = GaugeMetricFamily(f"withstand_{name}", _GAUGES[name])
            gauge.add_metric([], value())
            yield gauge
