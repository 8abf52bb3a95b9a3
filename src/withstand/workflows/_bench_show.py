"""Benched attacks as a table on the console and as a page with curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluate import Chart, Curve, Point, draw, render
from ..stats import Interval
from ._bench_result import NEAR, AttackBench, AttackResult, farthest

_COLOURS = 6
_HEADS = ("attack", "optimality", "near", "distance", "fooled", "forwards", "backwards", "CPU s")


def show_bench(bench: AttackBench, console: Console) -> None:
    """Print the answer and a row for each attack."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, name in enumerate((*_HEADS[:5], "calls", _HEADS[-1])):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in bench.attacks:
        cells = _cells(bench, row)
        table.add_row(*(Text(cell) for cell in (*cells[:5], f"{_calls(row):,.0f}", cells[-1])))
    console.print(Text(_headline(bench), style="bold"))
    console.print()
    console.print(table)
    console.print()
    console.print(Text(_conditions(bench), style="dim"))


def bench_page(benches: Mapping[str, AttackBench]) -> str:
    """A self-contained HTML page: the tables, and for each norm two charts."""
    return render(
        "workflows/bench.html.j2",
        parts=[
            {
                "norm": norm,
                "unit": _unit(bench),
                "headline": _headline(bench),
                "conditions": _conditions(bench),
                "rows": [_cells(bench, row) for row in bench.attacks],
                "accuracy": _accuracy(bench),
                "cost": _cost(bench),
                "others": len(bench.attacks) - 1 > _COLOURS,
                "provenance": json.dumps(bench.provenance, indent=2),
            }
            for norm, bench in benches.items()
        ],
        heads=_HEADS,
        colours=_COLOURS,
    )


def _headline(bench: AttackBench) -> str:
    top, cheap = bench.strongest, bench.cheapest
    if np.isnan(top.optimality.value):
        return (
            f"In {bench.norm} the attacks cannot be told apart on {bench.clean_accuracy.n} inputs: "
            "take more inputs, or more calls where none was fooled."
        )
    if len(bench.attacks) == 2:
        return f"In {bench.norm} only {top.name} was run: name more attacks to compare it with."
    told = (
        f"In {bench.norm} {top.name} comes nearest to the smallest change known, with optimality "
        f"{_number(top.optimality)}"
    )
    if cheap is top:
        return f"{told}; nothing as good is cheaper."
    return (
        f"{told}. {cheap.name} is not distinguishably worse, at {_calls(cheap):,.0f} calls an "
        f"input instead of {_calls(top):,.0f}."
    )


def _calls(row: AttackResult) -> float:
    return (row.cost.forwards + row.cost.backwards) / row.success.n


def _conditions(bench: AttackBench) -> str:
    clean = bench.clean_accuracy
    return (
        f"Optimality (Cina et al. 2025): 1 is the best of all on every input, 0 is nothing found; "
        f"brackets are 95 % intervals over inputs. Near: inputs with a change within {NEAR:g} "
        f"times the smallest known. Distance: the median, in {_unit(bench)}. Calls: "
        f"forwards + backwards, the mean of an input, up to {bench.calls:,} for each of "
        f"{bench.best.success.n:,} inputs answered rightly of {clean.n:,}. Seed {bench.seed}."
        + "".join(f" {name} left out: {reason}." for name, reason in bench.left_out.items())
    )


def _unit(bench: AttackBench) -> str:
    return "features" if bench.norm == "l0" else "units of the raw input"


def _number(figure: Interval) -> str:
    if np.isnan(figure.value):
        return "-"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _cells(bench: AttackBench, row: AttackResult) -> list[str]:
    n = row.success.n
    return [
        row.name,
        _number(row.optimality) if row is not bench.best else "1",
        "-" if np.isnan(row.near_best) else f"{100 * row.near_best:.0f} %",
        f"{row.median_distance:.3g}" if np.isfinite(row.median_distance) else "-",
        f"{100 * row.success.value:.0f} %",
        f"{row.cost.forwards / n:,.0f}",
        f"{row.cost.backwards / n:,.0f}",
        f"{row.cost.cpu_seconds:.1f}",
    ]


def _accuracy(bench: AttackBench) -> Chart | None:
    """Accuracy by distance of each attack, up to the end of the best one's."""
    longest = farthest(bench.best.distance)
    if not longest:
        return None

    def points(row: AttackResult) -> list[Point]:
        distance = row.distance
        radii = np.unique(distance[(distance > 0) & (distance <= longest)])
        shares = [Point(float(at), float((distance > at).mean())) for at in radii]
        start = Point(0.0, float((distance > 0).mean()))
        end = shares[-1].share if shares else start.share
        return [start, *shares, Point(1.02 * longest, end)]

    best = Curve(name=bench.best.name, points=points(bench.best), style="best")
    return draw([best, *_styled(bench.attacks[1:], points)])


def _cost(bench: AttackBench) -> Chart | None:
    """Share of inputs near the best, by calls."""
    if not farthest(bench.best.distance):
        return None

    def points(row: AttackResult) -> list[Point]:
        return [Point(spent.calls, spent.near_best) for spent in row.spent]

    return draw(_styled(bench.attacks[1:], points), first=1.0)


def _styled(
    rows: Sequence[AttackResult], points: Callable[[AttackResult], list[Point]]
) -> list[Curve]:
    """The best in colours, drawn last; the others thin and not in the legend."""
    curves = [
        Curve(
            name=row.name if number < _COLOURS else "",
            points=points(row),
            style=f"s{number}" if number < _COLOURS else "rest",
        )
        for number, row in enumerate(rows)
    ]
    return [*curves[_COLOURS:], *curves[:_COLOURS]]
