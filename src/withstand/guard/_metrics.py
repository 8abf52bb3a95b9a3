"""What is counted and timed, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The guard's own figures, in a registry of their own.

    Labels are of things that the operator has named, never of keys or inputs: their number must not
    grow with what clients send.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "withstand_requests", "Requests by model, tenant and status.",
            ("model", "tenant", "status"), registry=self.registry,
        )  # fmt: skip
        self._decisions = Counter(
            "withstand_decisions", "Inferences by decision, and by what was done.",
            ("model", "decision", "action"), registry=self.registry,
        )  # fmt: skip
        self._refused = Counter(
            "withstand_refused", "Requests that were not answered by the model, by reason.",
            ("reason",), registry=self.registry,
        )  # fmt: skip
        self._flags = Counter(
            "withstand_flags", "Flags by sensor.", ("sensor",), registry=self.registry
        )
        self._failures = Counter(
            "withstand_sensor_failures", "Sensors that gave no score, by why.",
            ("sensor", "why"), registry=self.registry,
        )  # fmt: skip
        self._evidence = Counter(
            "withstand_evidence_lost", "Decisions that left no record.", registry=self.registry
        )
        self._beside = Counter(
            "withstand_uninspected", "Observed requests that there was no time to look at.",
            registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "withstand_in_flight", "Requests that are being answered.", registry=self.registry
        )
        self.added = Histogram(
            "withstand_added_latency_seconds", "Time that the guard adds.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.upstream = Histogram(
            "withstand_upstream_latency_seconds", "Time that the model takes.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def request(self, model: str, tenant: str, status: int) -> None:
        """A request was answered."""
        self._requests.labels(model, tenant, str(status)).inc()

    def decision(self, model: str, decision: str, action: str) -> None:
        """An inference was decided upon."""
        self._decisions.labels(model, decision, action).inc()

    def refused(self, reason: str) -> None:
        """A request got no answer of the model."""
        self._refused.labels(reason).inc()

    def flag(self, sensor: str) -> None:
        """A sensor flagged a request."""
        self._flags.labels(sensor).inc()

    def failure(self, sensor: str, why: str) -> None:
        """A sensor gave no score."""
        self._failures.labels(sensor, why).inc()

    def lost(self) -> None:
        """A decision left no record."""
        self._evidence.inc()

    def uninspected(self) -> None:
        """An observed request was not looked at."""
        self._beside.inc()
