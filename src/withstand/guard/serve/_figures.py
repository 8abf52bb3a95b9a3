"""Figures of the evidence, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .._journal import Journal
from ..journal import EvidenceJournal, ImportCounts

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
    "imported_pairs": "Records of a request and its answer that another logger saw.",
    "imported_alone": "Records of one of both, without its other half.",
    "imported_repeated": "Events that had come before.",
    "imported_lost": "Records of what another logger saw that could not be kept.",
}
_GAUGES = {
    "waiting": "Records in memory.",
    "inputs_waiting": "Inputs in memory.",
    "imported_waiting": "Events that wait for their other half in memory.",
    "failing": "Whether evidence cannot be written at present.",
}


class EvidenceFigures:
    """Collects the counts of the events that came, and of the journal in use where one is kept."""

    def __init__(
        self, journal: Callable[[], Journal], imported: Callable[[], ImportCounts]
    ) -> None:
        self._journal, self._imported = journal, imported

    def collect(self) -> Iterator[Metric]:
        """The figures, as prometheus_client asks for them."""
        found: dict[str, float] = {
            f"imported_{name}": count for name, count in asdict(self._imported()).items()
        }
        journal = self._journal()
        if isinstance(journal, EvidenceJournal):
            found |= {**asdict(journal.counts), "failing": journal.failing}
        for name, told in _COUNTERS.items():
            if name in found:
                yield CounterMetricFamily(f"withstand_evidence_{name}", told, value=found[name])
        for name, told in _GAUGES.items():
            if name in found:
                yield GaugeMetricFamily(f"withstand_evidence_{name}", told, value=found[name])
