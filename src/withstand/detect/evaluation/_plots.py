"""The drawings of a report: ROC, distributions of scores, alarms by threshold."""

from __future__ import annotations

from dataclasses import replace
from math import asinh, floor, log10, sinh

import numpy as np

from ...evaluate import Chart, Curve, Line, Point, draw
from ...stats import clopper_pearson
from ._attacks import SMALLEST, SUREST
from ._report import Array, DetectionReport, Row

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 72, 20, 34, 58, 640, 320
_BINS, _KNOTS = 40, 60


def chosen(report: DetectionReport) -> list[Row]:
    """The rows that are drawn: what is flagged least of each kind, at the threat's radius."""
    radius = max((row.radius for row in report.rows if row.counts), default=0.0)
    here = [row for row in report.rows if row.counts and row.radius == radius and len(row.scores)]
    kinds = (
        [row for row in here if row.kept == SUREST],
        [row for row in here if row.kept == SMALLEST],
        [row for row in here if not row.knows and "queries" in row.settings],
        [row for row in here if row.knows],
    )
    return [max(rows, key=lambda row: row.usr.value) for rows in kinds if rows]


def roc(report: DetectionReport) -> Chart | None:
    """True against false positives, from the least rate that the benign inputs can show."""
    rows, benign = chosen(report), np.sort(report.benign_scores)[::-1]
    n = len(benign)
    if not rows or n < 20:
        return None
    flagged = np.unique(np.geomspace(1, n, 120).round().astype(int))

    def points(row: Row) -> list[Point]:
        # So many benign inputs lie above the score of the next one.
        limits = [benign[k] if k < n else -np.inf for k in flagged]
        shares = [float((row.scores > limit).mean()) for limit in limits]
        return [Point(k / n, share) for k, share in zip(flagged.tolist(), shares, strict=True)]

    curves = [
        Curve(name=_name(row), points=points(row), style=f"s{i}") for i, row in enumerate(rows)
    ]
    promised = report.benign.promised
    chart = draw(curves, first=1 / n, mark=promised if promised >= 1 / n else None)
    across = tuple((x, f"{100 * at:.3g} %") for x, at in _rates(1 / n, chart))
    return replace(chart, across=across, mark_label=f"promised: {100 * promised:.3g} %")


def _rates(first: float, chart: Chart) -> list[tuple[float, float]]:
    powers = range(floor(log10(first)), 1)
    values = [10.0**p * f for p in powers for f in (1, 2, 5) if first <= 10.0**p * f <= 1]
    return [(chart.left + (chart.right - chart.left) * log10(v / first) / log10(1 / first), v)
            for v in values]  # fmt: skip


def histogram(report: DetectionReport) -> Chart | None:
    """How the scores of benign and of attacked inputs are distributed, each to its own height."""
    rows, axis = chosen(report), _Axis(report)
    shown = [("benign", report.benign_scores, "best")]
    shown += [(_name(row), row.scores, f"s{i}") for i, row in enumerate(rows)]
    edges = np.linspace(axis.low, axis.high, _BINS + 1)
    lines = []
    for name, scores, style in shown:
        counts, _ = np.histogram(axis.places(scores).clip(axis.low, axis.high), edges)
        heights = counts / max(counts.max(), 1)
        path = [(edges[0], 0.0)]
        for left, right, height in zip(edges, edges[1:], heights, strict=False):
            path += [(left, height), (right, height)]
        path.append((edges[-1], 0.0))
        lines.append(_line(name, [(axis.x(a), _y(h)) for a, h in path], style))
    return axis.chart(tuple(lines), ((_y(0.0), "0"), (_y(1.0), "most")))


def alarms(report: DetectionReport) -> Chart | None:
    """Expected false alarms a day by the threshold, with 95 % intervals, logarithmically."""
    axis, n, requests = _Axis(report), len(report.benign_scores), report.requests
    top, bottom = log10(requests), max(log10(requests / n) - 1, -1.0)
    if top <= bottom:
        return None

    def y(count: float) -> float:
        return _y((log10(max(count, 10**bottom)) - bottom) / (top - bottom))

    middle, low, high = [], [], []
    for place in np.linspace(axis.low, axis.high, _KNOTS):
        above = int((report.benign_scores > axis.score(float(place))).sum())
        rate = clopper_pearson(above, n)
        middle.append((axis.x(place), y(rate.value * requests)))
        low.append((axis.x(place), y(rate.low * requests)))
        high.append((axis.x(place), y(rate.high * requests)))
    line = _line("expected", middle, "s0", [*low, *reversed(high)])
    powers = range(int(np.ceil(bottom)), floor(top) + 1)
    return axis.chart((line,), tuple((y(10.0**p), f"{10.0**p:,.15g}") for p in powers))


class _Axis:
    """Scores less the threshold in standard deviations of the benign ones, far ones compressed."""

    def __init__(self, report: DetectionReport) -> None:
        benign = report.benign_scores
        self.unit = float(np.std(benign)) or 1.0
        every = np.concatenate([benign, *(row.scores for row in chosen(report))])
        places = self.places(every)
        self.low = float(min(places.min(), -1.0)) - 0.1
        self.high = float(max(places.max(), 1.0)) + 0.1

    def places(self, scores: Array) -> Array:
        return np.arcsinh(scores / self.unit)

    def score(self, place: float) -> float:
        return sinh(place) * self.unit

    def x(self, place: float) -> float:
        share = (place - self.low) / (self.high - self.low)
        return round(_LEFT + (_WIDTH - _RIGHT - _LEFT) * share, 1)

    def chart(self, lines: tuple[Line, ...], up: tuple[tuple[float, str], ...]) -> Chart:
        """The lines with this axis, and a mark at the threshold."""
        sizes = [s * 10.0**p for p in range(6) for s in (-1, 1)]
        ticks = sorted([0.0, *sizes])
        across = [(self.x(asinh(t)), f"{t:g}") for t in ticks if self.low < asinh(t) < self.high]
        return Chart(
            lines=lines,
            across=tuple(across),
            up=up,
            mark=self.x(0.0),
            mark_label="threshold",
            left=_LEFT,
            right=_WIDTH - _RIGHT,
            top=_TOP,
            bottom=_HEIGHT - _BOTTOM,
            width=_WIDTH,
            height=_HEIGHT,
        )


def _name(row: Row) -> str:
    return f"{'aware: ' * row.knows}{row.title}"


def _line(
    name: str,
    path: list[tuple[float, float]],
    style: str,
    band: list[tuple[float, float]] | None = None,
) -> Line:
    return Line(name=name, path=_joined(path), band=_joined(band or []), style=style)


def _joined(path: list[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in path)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share, 1)
