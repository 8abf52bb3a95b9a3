"""Robust accuracy over what it costs, as drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log10

from ..stats import Interval
from ._compare import Row

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 64, 24, 30, 52, 640, 354
_COLOURS = 6


@dataclass(frozen=True, kw_only=True)
class Dot:
    """An entry in the drawing's coordinates, with the ends of both intervals.

    label: its number and those of what lies under it; empty for what lies under another.
    """

    number: int
    label: str
    name: str
    style: str
    hollow: bool
    x: float
    y: float
    across: tuple[float, float]
    up: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Robust accuracy over another figure."""

    title: str
    axis: str
    dots: tuple[Dot, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM
    width: int = _WIDTH
    height: int = _HEIGHT


def scatters(rows: Sequence[Row]) -> list[Scatter]:
    """Over clean accuracy, and over both costs where they differ between entries."""
    clean = [row.report.clean_accuracy for row in rows]
    found = [
        _scatter(
            rows,
            clean,
            title="What robustness costs in clean accuracy",
            axis="clean accuracy",
            share=True,
        )
    ]
    for title, axis, values in (
        ("What robustness costs at inference", "CPU time of an answer, first entry = 1",
         [row.inference_cost for row in rows]),
        ("What robustness costs in training", "training over standard training",
         [row.training_cost for row in rows]),
    ):  # fmt: skip
        known = [(row, value) for row, value in zip(rows, values, strict=True) if value]
        if len({value for _, value in known}) > 1:
            figures = [Interval(value=v, low=v, high=v, n=1) for _, v in known]
            found.append(_scatter([row for row, _ in known], figures, title=title, axis=axis,
                                  numbers=[rows.index(row) for row, _ in known]))  # fmt: skip
    return found


def _scatter(
    rows: Sequence[Row],
    figures: Sequence[Interval],
    *,
    title: str,
    axis: str,
    share: bool = False,
    numbers: Sequence[int] | None = None,
) -> Scatter:
    """Shares from the lowest one on, and costs from 1 or less on, logarithmically."""
    values = [end for figure in figures for end in (figure.low, figure.high)]
    if share:
        low, high = int(20 * min(values)) / 20, 1.0
        low = min(low, 0.95)
        ticks = [low + i * (high - low) / 4 for i in range(5)]
        told = [f"{100 * tick:.3g} %" for tick in ticks]
    else:
        low, high = min(1.0, *values) / 1.1, max(2.0, *values) * 1.1
        ticks = [t for p in range(-1, 5) for t in (10.0**p, 2 * 10.0**p, 5 * 10.0**p)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        told = [f"{tick:g} x" for tick in ticks]

    def x(value: float) -> float:
        part = (value - low) / (high - low) if share else log10(value / low) / log10(high / low)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - value * (_HEIGHT - _BOTTOM - _TOP), 1)

    robust = [row.report.robust_accuracy for row in rows]
    dots = tuple(
        Dot(
            number=number + 1,
            label=str(number + 1),
            name=row.name,
            style=f"s{number % _COLOURS}",
            hollow=row.adaptive is False,
            x=x(figure.value),
            y=y(tall.value),
            across=(x(figure.low), x(figure.high)),
            up=(y(tall.low), y(tall.high)),
        )
        for number, row, figure, tall in zip(
            range(len(rows)) if numbers is None else numbers, rows, figures, robust, strict=True
        )
    )
    return Scatter(
        title=title,
        axis=axis,
        dots=_labelled(dots),
        across=tuple(zip(map(x, ticks), told, strict=True)),
        up=tuple((y(i / 4), f"{25 * i} %") for i in range(5)),
    )


def _labelled(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """Dots in the same place share a label, which the first of them has."""
    found: list[Dot] = []
    for dot in dots:
        above = next((i for i, d in enumerate(found) if d.label and _close(d, dot)), None)
        if above is not None:
            found[above] = replace(found[above], label=f"{found[above].label}, {dot.number}")
            dot = replace(dot, label="")
        found.append(dot)
    return tuple(found)


def _close(one: Dot, other: Dot) -> bool:
    return abs(one.x - other.x) < 8 and abs(one.y - other.y) < 8
