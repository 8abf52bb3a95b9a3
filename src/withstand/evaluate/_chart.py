"""Curves of shares as a drawing: the security curve, and those of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import NamedTuple

from ._report import Report

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 34, 58


class Point(NamedTuple):
    """A share from `at` on, with its interval where there is one."""

    at: float
    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A share that changes in steps; style is a class of the style sheet, s0 to s5, best or rest.

    A curve without a name is drawn and left out of the legend.
    """

    name: str
    points: Sequence[Point]
    style: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve in the drawing's coordinates: a path, and the band of its intervals."""

    name: str
    path: str
    band: str
    style: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything the template draws."""

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    mark: float | None
    mark_label: str
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


def chart(reports: dict[str, Report]) -> Chart | None:
    """The curves of all reports in one drawing; None if no report has one."""
    found = {name: report.curve for name, report in reports.items() if report.curve}
    if not found:
        return None
    radii = [report.threat["eps"] for report in reports.values()]
    radius = radii[0] if radii.count(radii[0]) == len(radii) else None
    curves = []
    for number, (name, curve) in enumerate(found.items()):
        shares = [(point.eps, point.robust_accuracy) for point in curve]
        points = [Point(eps, share.value, share.low, share.high) for eps, share in shares]
        curves.append(Curve(name=name, points=points, style=f"s{number % 2}"))
    return draw(curves, mark=None if isinstance(radius, list) else radius)


def draw(curves: Sequence[Curve], *, first: float = 0.0, mark: float | None = None) -> Chart:
    """Curves in one drawing from `first` to their farthest point; logarithmic if first is above 0.

    mark: the threat's radius.
    """
    last = max(curve.points[-1].at for curve in curves)

    def x(value: float) -> float:
        share = log10(value / first) / log10(last / first) if first else value / last
        return round(_LEFT + (WIDTH - _RIGHT - _LEFT) * share, 1)

    def y(share: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * share, 1)

    def line(curve: Curve) -> Line:
        # Between two points the share may change anywhere, so the line does at the later one.
        steps: list[Point] = []
        for point in curve.points:
            if steps:
                steps.append(steps[-1]._replace(at=point.at))
            steps.append(point)
        path = " ".join(f"{x(p.at)},{y(p.share)}" for p in steps)
        lower = [f"{x(p.at)},{y(p.low)}" for p in steps if p.low is not None]
        upper = [f"{x(p.at)},{y(p.high)}" for p in reversed(steps) if p.high is not None]
        return Line(name=curve.name, path=path, band=" ".join(lower + upper), style=curve.style)

    ticks = _decades(first, last) if first else _ticks(last)
    return Chart(
        lines=tuple(line(curve) for curve in curves),
        across=tuple(
            (x(value), f"{value:.3g}" if value < 1000 else f"{value:,.0f}") for value in ticks
        ),
        up=tuple((y(i / 4), f"{25 * i} %") for i in range(5)),
        mark=None if mark is None else x(mark),
        mark_label="" if mark is None else f"the threat: {mark:.3g}",
    )


def _ticks(longest: float) -> list[float]:
    """Round values from 0 to at most `longest`, four to ten of them."""
    power = 10.0 ** floor(log10(longest / 4))
    # The logarithm of a value just below a power of ten is rounded up to that power.
    steps = (power * factor for factor in (0.5, 1, 2, 5))
    step = max(step for step in steps if step <= longest / 4)
    return [i * step for i in range(int(longest / step) + 1)]


def _decades(first: float, last: float) -> list[float]:
    """The values 1, 2 and 5 times a power of ten from first to last."""
    powers = range(floor(log10(first)), floor(log10(last)) + 1)
    values = (10.0**power * factor for power in powers for factor in (1, 2, 5))
    return [value for value in values if first <= value <= last]
