"""Whether users feel the campaign: the guard's own figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from .._errors import OperationError
from ._scope import Safety

_LOOK = 1.0
_FEWEST = 20


class Watched(Protocol):
    """The admin port of the guard in front of the target."""

    def status(self) -> dict[str, Any]:
        """Whether it is killed or ends, and how its evidence is."""

    def metrics(self) -> str:
        """Its figures in the text form of Prometheus; raises OperationError without an answer."""


class Impact:
    """Looks at a guard about once a second, and tells why a campaign must end.

    Shares and means are of what happened since a look that lies at least 20 requests back, so that
    one failure among three requests is no outage.
    """

    def __init__(
        self, guard: Watched, limits: Safety, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._guard, self._limits, self._clock = guard, limits, clock
        self._at = -float("inf")
        self._before: dict[str, float] | None = None

    def why(self) -> str:
        """Why the campaign must end, empty where it may go on; no answer is a reason."""
        now = self._clock()
        if now - self._at < _LOOK:
            return ""
        try:
            status, figures = self._guard.status(), _figures(self._guard.metrics())
        except OperationError as error:
            return f"the guard does not tell how it is: {error}"
        except (ValueError, KeyError):
            return "the guard tells how it is in no form that is known"
        self._at = now
        if status.get("killed"):
            return "the guard's inspection is switched off"
        if status.get("draining"):
            return "the guard is ending"
        if status.get("evidence") == "failing":
            return "the guard cannot write evidence"
        limits = self._limits
        if figures["lag"] > limits.lag:
            return f"the guard's loop is {figures['lag']:.2f} s late, more than {limits.lag:g}"
        if self._before is None:
            self._before = figures
            return ""
        since = {name: figures[name] - self._before[name] for name in figures}
        if since["requests"] < 0:
            return "the guard has started anew"
        if since["requests"] < _FEWEST:
            return ""
        self._before = figures
        errors = since["failures"] / since["requests"]
        if errors > limits.errors:
            return (
                f"{errors:.1%} of the guard's last {since['requests']:.0f} requests failed, more "
                f"than {limits.errors:.1%}"
            )
        added = since["added"] / max(since["answers"], 1)
        if added > limits.added:
            return f"the guard adds {added:.2f} s to a request, more than {limits.added:g}"
        return ""


def _figures(text: str) -> dict[str, float]:
    """What is needed of the guard's exposition."""
    from prometheus_client.parser import text_string_to_metric_families

    found = dict.fromkeys(("requests", "failures", "added", "answers", "lag"), 0.0)
    plain = {
        "withstand_added_latency_seconds_sum": "added",
        "withstand_added_latency_seconds_count": "answers",
        "withstand_loop_lag_seconds": "lag",
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in plain:
                found[plain[sample.name]] += sample.value
            elif sample.name == "withstand_requests_total":
                found["requests"] += sample.value
                if sample.labels["status"].startswith("5"):
                    found["failures"] += sample.value
    return found
