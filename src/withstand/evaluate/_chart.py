"""The security curve as a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

from ._report import CurvePoint, Report

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 34, 58


@dataclass(frozen=True, kw_only=True)
class Line:
    """One report's curve in the drawing's coordinates: a path, and the band of its intervals."""

    name: str
    path: str
    band: str


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
    curves = {name: report.curve for name, report in reports.items() if report.curve}
    if not curves:
        return None
    longest = max(curve[-1].eps for curve in curves.values())
    radii = [report.threat["eps"] for report in reports.values()]
    radius = radii[0] if radii.count(radii[0]) == len(radii) else None
    radius = None if isinstance(radius, list) else radius

    def x(value: float) -> float:
        return round(_LEFT + (WIDTH - _RIGHT - _LEFT) * value / longest, 1)

    def y(share: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * share, 1)

    def line(name: str, curve: tuple[CurvePoint, ...]) -> Line:
        # Between two radii the accuracy may fall anywhere, so the line falls at the later one.
        steps: list[tuple[float, float, float, float]] = []
        for point in curve:
            at, found = x(point.eps), point.robust_accuracy
            if steps:
                steps.append((at, *steps[-1][1:]))
            steps.append((at, y(found.value), y(found.low), y(found.high)))
        path = " ".join(f"{at},{middle}" for at, middle, _, _ in steps)
        lower = [f"{at},{low}" for at, _, low, _ in steps]
        upper = [f"{at},{high}" for at, _, _, high in reversed(steps)]
        return Line(name=name, path=path, band=" ".join(lower + upper))

    return Chart(
        lines=tuple(line(name, curve) for name, curve in curves.items()),
        across=tuple((x(value), f"{value:.3g}") for value in _ticks(longest)),
        up=tuple((y(i / 4), f"{25 * i} %") for i in range(5)),
        mark=None if radius is None else x(radius),
        mark_label="" if radius is None else f"the threat: {radius:.3g}",
    )


def _ticks(longest: float) -> list[float]:
    """Round values from 0 to at most `longest`, four to ten of them."""
    power = 10.0 ** floor(log10(longest / 4))
    # The logarithm of a value just below a power of ten is rounded up to that power.
    steps = (power * factor for factor in (0.5, 1, 2, 5))
    step = max(step for step in steps if step <= longest / 4)
    return [i * step for i in range(int(longest / step) + 1)]
