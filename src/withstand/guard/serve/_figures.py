"""Figures of the evidence, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .._journal import Journal
from ..journal import EvidenceJournal

_COUNTERS = {
    "written": "Records on the disk.",
    "dropped": "Records of benign requests for which there was no room.",
    "refused": "Other records for which there was no room.",
    "malformed": "Records that could not be written down at all.",
    "skipped": "Records of benign requests that were not asked for.",
    "failures": "Failures of writing.",
    "inputs_kept": "Inputs in the vault.",
    "inputs_dropped": "Inputs of benign requests for which there was no room.",
    "inputs_refused": "Flagged inputs for which there was no room.",
    "inputs_failed": "Inputs that the vault could not keep.",
    "anchors_failed": "Checkpoints that an anchor did not take.",
}
_GAUGES = {
    "waiting": "Records in memory.",
    "inputs_waiting": "Inputs in memory.",
    "failing": "Whether evidence cannot be written at present.",
}


class EvidenceFigures:
    """Collects the counts of the journal that is in use; there are none where nothing is kept."""

    def __init__(self, journal: Callable[[], Journal]) -> None:
        self._journal = journal

    def collect(self) -> Iterator[Metric]:
        """The figures, as prometheus_client asks for them."""
        journal = self._journal()
        if not isinstance(journal, EvidenceJournal):
            return
        counts = journal.counts
        for name, told in _COUNTERS.items():
            yield CounterMetricFamily(
                f"withstand_evidence_{name}", told, value=getattr(counts, name)
            )
        gauges = {
            "waiting": counts.waiting,
            "inputs_waiting": counts.inputs_waiting,
            "failing": journal.failing,
        }
        for name, told in _GAUGES.items():
            yield GaugeMetricFamily(f"withstand_evidence_{name}", told, value=gauges[name])
