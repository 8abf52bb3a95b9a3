"""Figures of features that drift, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .._lines import Line
from ..drift import FeatureDrift

_OF = ("model", "input")

FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "feature_drift_index": (
        "Population stability index of a feature in the last full window.", (*_OF, "feature")
    ),
    "feature_drift_bound": ("What the index exceeds only rarely by chance.", (*_OF, "feature")),
    "feature_drift_window_end_timestamp_seconds": ("When the last full window ended.", _OF),
    "feature_drift_rows_wanted": ("Rows still wanted until the next window is full.", _OF),
}  # fmt: skip
"""What is told of each table, after `withstand_`, and by which labels; none before it is known."""


class DriftFigures:
    """Collects what the lines of the guard that answers at present say of their features."""

    def __init__(self, lines: Callable[[], Mapping[str, Line]]) -> None:
        self._lines = lines

    def collect(self) -> Iterator[Metric]:
        """The figures, as prometheus_client asks for them."""
        families = {
            name: GaugeMetricFamily(f"withstand_{name}", told, labels=labels)
            for name, (told, labels) in FIGURES.items()
        }
        for model, line in self._lines().items():
            for sensor in line.sensors:
                if not isinstance(sensor, FeatureDrift):
                    continue
                for name, window in sensor.windows.items():
                    of = [model, name]
                    families["feature_drift_rows_wanted"].add_metric(of, window.wanted)
                    if window.last is None:
                        continue
                    families["feature_drift_window_end_timestamp_seconds"].add_metric(
                        of, window.last.ended
                    )
                    for feature, one in window.last.features.items():
                        labels = [*of, feature]
                        families["feature_drift_index"].add_metric(labels, one.index)
                        families["feature_drift_bound"].add_metric(labels, one.bound)
        yield from (family for family in families.values() if family.samples)


def drift_told(line: Line) -> dict[str, object]:
    """What `status` says of a line's features, nothing where they are not watched."""
    found = [sensor.told() for sensor in line.sensors if isinstance(sensor, FeatureDrift)]
    return {"drift": found[0]} if found else {}
