"""Drawings in their own coordinates; one macro of the templates draws them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import floor, isfinite, log10

from ..stats import Interval

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 26
_WHOLE, _HALF = 1000, 480


@dataclass
class Chart:
    """Shapes of an SVG; kind: a class of the style sheet; title: what a pointer is told.

    rects: x, y, width, height, kind, title. lines: points, kind. dots: x, y, radius, kind, title.
    texts: x, y, text, anchor, kind. about: for who cannot see it.
    """

    width: int
    height: int
    about: str
    rects: list[tuple[float, float, float, float, str, str]] = field(default_factory=list)
    areas: list[tuple[str, str]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    dots: list[tuple[float, float, float, str, str]] = field(default_factory=list)
    texts: list[tuple[float, float, str, str, str]] = field(default_factory=list)

    def across(self, share: float) -> float:
        """Where a share of the width is."""
        return round(_LEFT + (self.width - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0), 1)

    def up(self, share: float) -> float:
        """Where a share of the height is."""
        room = self.height - _TOP - _BOTTOM
        return round(self.height - _BOTTOM - room * min(max(share, 0.0), 1.0), 1)

    def grid(self, marks: Sequence[tuple[float, str]]) -> None:
        """Lines across, with what they stand for."""
        for at, text in marks:
            y = self.up(at)
            self.lines.append((f"{_LEFT},{y} {self.width - _RIGHT},{y}", "grid"))
            self.texts.append((_LEFT - 8, y + 4, text, "end", "tick"))

    def times(self, since: float, until: float, most: int = 5) -> None:
        """Moments below, in UTC."""
        form = "%H:%M" if until - since < 2 * 86_400 else "%d %b"
        for number in range(most):
            share = number / (most - 1)
            moment = datetime.fromtimestamp(since + share * (until - since), UTC)
            anchor = "start" if number == 0 else "end" if number == most - 1 else "middle"
            self.texts.append(
                (self.across(share), self.height - 6, f"{moment:{form}}", anchor, "tick")
            )


def traffic(
    walls: Sequence[tuple[float, str]], since: float, until: float, buckets: int = 48,
    width: int = _WHOLE,
) -> Chart:  # fmt: skip
    """How many decisions there were in each stretch of time, by what was decided."""
    kinds = ("pass", "flag", "refuse")
    counts = [dict.fromkeys(kinds, 0) for _ in range(buckets)]
    for wall, kind in walls:
        place = int((wall - since) / (until - since) * buckets)
        if 0 <= place < buckets and kind in kinds:
            counts[place][kind] += 1
    most = _round_up(max((sum(one.values()) for one in counts), default=0))
    flagged = sum(one["flag"] for one in counts)
    chart = Chart(width, 190, f"{len(walls)} decisions, {flagged} of them flagged")
    chart.grid(_counts(most))
    each = (chart.across(1) - chart.across(0)) / buckets
    for place, one in enumerate(counts):
        below = 0.0
        for kind in kinds:
            if one[kind]:
                top, bottom = chart.up((below + one[kind]) / most), chart.up(below / most)
                x = chart.across(0) + place * each
                told = f"{one[kind]} {_PAST[kind]}"
                chart.rects.append(
                    (round(x, 1), top, round(each - 1.5, 1), bottom - top, kind, told)
                )
                below += one[kind]
    chart.times(since, until)
    return chart


_PAST = {"pass": "passed", "flag": "flagged", "refuse": "refused"}


def trend(
    points: Sequence[tuple[float, Interval]], about: str, limit: float | None = None
) -> Chart:
    """A share over time with the band of its intervals, and the limit it must stay below."""
    chart = Chart(_HALF, 190, about)
    shown = [(wall, one) for wall, one in points if one.n]
    highest = max([one.high for _, one in shown] + ([limit] if limit else []), default=1.0)
    most = min(1.0, _round_up(100 * highest) / 100)
    chart.grid([(i / 2, f"{50 * i * most:.3g} %") for i in range(3)])
    if not shown:
        return chart
    since, until = shown[0][0], max(shown[-1][0], shown[0][0] + 3600)

    def place(wall: float, value: float) -> tuple[float, float]:
        return chart.across((wall - since) / (until - since)), chart.up(value / most)

    upper = [place(wall, one.high) for wall, one in shown]
    lower = [place(wall, one.low) for wall, one in reversed(shown)]
    chart.areas.append((_path(upper + lower), "band"))
    if limit is not None:
        y = chart.up(limit / most)
        chart.lines.append((f"{chart.across(0)},{y} {chart.across(1)},{y}", "limit"))
    chart.lines.append((_path([place(wall, one.value) for wall, one in shown]), "line"))
    for wall, one in shown:
        told = f"{100 * one.value:.1f} % of {one.n}, {100 * one.low:.1f} to {100 * one.high:.1f} %"
        chart.dots.append((*place(wall, one.value), 3.5, "dot", told))
    chart.times(since, until)
    return chart


def bars(counts: Sequence[tuple[str, int, int]], about: str) -> Chart:
    """Two counts for each name, one above the other: the severe ones below."""
    chart = Chart(_HALF, 170, about)
    most = _round_up(max((a + b for _, a, b in counts), default=0))
    chart.grid(_counts(most))
    each = (chart.across(1) - chart.across(0)) / max(1, len(counts))
    for number, (name, severe, other) in enumerate(counts):
        x, wide = chart.across(0) + (number + 0.2) * each, 0.6 * each
        below = 0.0
        for value, kind in ((severe, "refuse"), (other, "flag")):
            top, bottom = chart.up((below + value) / most), chart.up(below / most)
            if value:
                chart.rects.append((round(x, 1), top, round(wide, 1), bottom - top, kind,
                                    f"{name}: {value}"))  # fmt: skip
            below += value
        chart.texts.append((round(x + wide / 2, 1), chart.height - 6, name, "middle", "tick"))
    return chart


def scores(benign: Sequence[float], threshold: float, mark: float | None, name: str) -> Chart:
    """How the scores of inputs that passed are spread, the threshold, and one score among them."""
    chart = Chart(360, 120, f"scores of {name} on {len(benign)} inputs that passed")
    known = [one for one in benign if isfinite(one)]
    ends = [*known, threshold, *([mark] if mark is not None and isfinite(mark) else [])]
    ends = [one for one in ends if isfinite(one)] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    room = (high - low or 1.0) * 0.05
    low, high = low - room, high + room

    def place(value: float) -> float:
        return chart.across((value - low) / (high - low))

    counts = [0] * 30
    for one in known:
        counts[min(29, int((one - low) / (high - low) * 30))] += 1
    most = max(counts) or 1
    each = (chart.across(1) - chart.across(0)) / 30
    for number, count in enumerate(counts):
        if count:
            top = chart.up(0.9 * count / most)
            x, wide, high = chart.across(0) + number * each, each - 1, chart.up(0) - top
            told = f"{count} inputs"
            chart.rects.append((round(x, 1), top, round(wide, 1), round(high, 1), "pass", told))
    for value, kind in ((threshold, "limit"), (mark, "mark")):
        if value is not None and isfinite(value):
            chart.lines.append((f"{place(value)},{chart.up(1)} {place(value)},{chart.up(0)}", kind))
    chart.lines.append((f"{chart.across(0)},{chart.up(0)} {chart.across(1)},{chart.up(0)}", "grid"))
    for value, anchor in ((low + room, "start"), (high - room, "end")):
        chart.texts.append((place(value), chart.height - 8, f"{value:.3g}", anchor, "tick"))
    return chart


def strip(
    points: Sequence[tuple[float, float, bool, str]], threshold: float | None, about: str
) -> Chart:
    """A client's scores over time as shares of the threshold; flagged ones stand out."""
    chart = Chart(_WHOLE, 190, about)
    highest = max([one for _, one, _, _ in points if isfinite(one)] + [1.2], default=1.2)
    most = min(_round_up(highest), 10.0)
    chart.grid([(0, "0"), (1 / most, "limit"), (1, f"{most:.3g}\N{MULTIPLICATION SIGN}")])
    if not points:
        return chart
    since, until = points[0][0], max(points[-1][0], points[0][0] + 1)
    for wall, value, flagged, told in points:
        share = value / most if isfinite(value) else 1.0
        kind = "flagged" if flagged else "calm"
        chart.dots.append((chart.across((wall - since) / (until - since)), chart.up(share), 3.5,
                           kind, told))  # fmt: skip
    y = chart.up(1 / most)
    chart.lines.append((f"{chart.across(0)},{y} {chart.across(1)},{y}", "limit"))
    chart.times(since, until)
    return chart


def since_hours(hours: float) -> tuple[float, float]:
    """A stretch of time that ends now."""
    now = time.time()
    return now - 3600 * hours, now


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ..."""
    if value <= 1:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value * (1 - 1e-12))


def _counts(most: float) -> list[tuple[float, str]]:
    """Marks for whole numbers."""
    half = [(0.5, _number(most / 2))] if most % 2 == 0 else []
    return [(0, "0"), *half, (1, _number(most))]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
