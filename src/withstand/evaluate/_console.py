"""The report as text for a terminal."""

from __future__ import annotations

from math import isfinite

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ._report import CurvePoint, Report
from ._show_trust import STYLE, verdict_line
from ._words import (
    BOUND,
    by_weight,
    cost_words,
    defended,
    headline,
    implied,
    printable,
    worst_slices,
)
from .business import effort, giving_way, paragraph

_BARS = 8


def show(report: Report, console: Console) -> None:
    """Print the report: headline, figures, cascade, curve, trust, and what is left to say."""
    bar = "#" if console.options.ascii_only else "█"
    parts: list[list[RenderableType]] = [
        [_text(headline({"": report}), "bold")],
        [_figures(report), _details(report)],
        [] if report.business is None else [_text(paragraph(report.business))],
        _cascade(report),
        [_surrogates(report)] if report.surrogates else [],
        _defences(report),
        [_curve(report, bar)] if report.curve else [],
        _trust(report),
        [_text(f"note: {note}") for note in report.notes],
        [_text(BOUND, "dim")],
    ]
    for number, part in enumerate(part for part in parts if part):
        if number:
            console.print()
        for line in part:
            console.print(line)


def _text(words: object, style: str = "") -> Text:
    """Words as they are: names of the user's are no markup and steer no terminal."""
    return Text(printable(words), style)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=bool(columns))
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=i > 0)
    return table


def _figures(report: Report) -> Table:
    table = _table()
    rows = [
        ("clean accuracy", report.clean_accuracy, "right without an attacker", ""),
        ("robust accuracy", report.robust_accuracy, "at most: right in the worst case", "bold"),
        ("fooling rate", report.fooling_rate, "at least: of the right answers", ""),
    ]
    if report.certified_accuracy is not None:
        rows.append(("certified accuracy", report.certified_accuracy, "at least: proven", ""))
    for name, figure, meaning, style in rows:
        table.add_row(name, _text(figure), meaning, style=style)
    return table


def _details(report: Report) -> Table:
    table, cost = _table(), report.cost
    region = report.threat["region"]
    if implied(report):
        region = region.partition(" and ")[2]
    rows = [("threat", f"{region}; success is {report.threat['goal']}")]
    rows += worst_slices(report)
    if report.business is not None:
        rows += [*effort(report.business), ("gives way", giving_way(report.business) or "nothing")]
    rows += [
        (f"change, {spread.measure}", f"median {spread.median:.3g}, worst {spread.worst:.3g}")
        for spread in report.perceptibility
    ]
    nearest = report.median_distance
    if nearest is not None and isfinite(nearest.value):
        rows.append(("nearest mistake", f"median distance {nearest.in_units()}"))
    if report.severity is not None:
        loss = report.severity
        rows.append(
            (
                "cost of mistakes",
                f"{loss.clean_mean.in_units()} a sample clean, {loss.robust_mean.in_units()} under "
                f"attack, {loss.worst:.3g} at worst",
            )
        )
    if report.training is not None:
        rows.append(("training", cost_words(report.training)))
    spent = (
        f"{cost.forwards:,} forwards, {cost.backwards:,} backwards, {cost.wall_seconds:.1f} s "
        f"({cost.cpu_seconds:.1f} CPU s)"
    )
    for name, words in [*rows, ("spent", spent)]:
        table.add_row(_text(name), _text(words))
    return table


def _cascade(report: Report) -> list[RenderableType]:
    table = _table("attack", "samples", "fooled", "forwards", "backwards", "CPU s")
    notes: list[RenderableType] = []
    for stage in report.attacks:
        cost = stage.cost
        table.add_row(
            _text(stage.title),
            f"{stage.samples:,}",
            f"{stage.fooled:,}",
            f"{cost.forwards:,}",
            f"{cost.backwards:,}",
            f"{cost.cpu_seconds:.1f}",
        )
        if stage.note:
            notes.append(_text(f"{stage.title}: {stage.note}", "dim"))
    return [table, *notes]


def _surrogates(report: Report) -> Table:
    table = _table("surrogate", "right", "forwards", "backwards")
    for surrogate in report.surrogates:
        table.add_row(
            _text(surrogate.name),
            _text(surrogate.accuracy),
            f"{surrogate.forwards:,}",
            f"{surrogate.backwards:,}",
        )
    return table


def _defences(report: Report) -> list[RenderableType]:
    if report.defences is None:
        return []
    table = _table("defence", "cost", "made for", "attacked")
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "left", False
    for one in report.defences.carried:
        cost = "-" if one.cost_factor is None else f"{one.cost_factor:.2g} x"
        made_for = "; ".join(one.made_for) or "not said"
        table.add_row(_text(one.name), cost, _text(made_for), _text(one.adaptive))
    style = "yellow" if report.defences.missing or report.defences.masking else ""
    return [table, *(_text(line, style) for line in defended(report))]


def _curve(report: Report, bar: str) -> Table:
    table = _table("radius", "")
    table.columns[1].header = "robust accuracy, at most"
    table.columns[0].justify, table.columns[1].justify = "right", "left"
    for point in _chosen(report):
        share = point.robust_accuracy.value
        own = "  the threat's radius" if point.eps == report.threat["eps"] else ""
        table.add_row(f"{point.eps:.3g}", f"{bar * round(30 * share)} {100 * share:.0f} %{own}")
    return table


def _chosen(report: Report) -> list[CurvePoint]:
    """Some points of the curve, the threat's own among them."""
    step = max(len(report.curve) // _BARS, 1)
    own = report.threat["eps"]
    return [p for i, p in enumerate(report.curve) if i % step == 0 or p.eps == own]


def _trust(report: Report) -> list[RenderableType]:
    lines: list[RenderableType] = [verdict_line(report.trust)]
    for finding in by_weight(report.trust.findings):
        if finding.verdict == "green":
            continue
        value = "" if finding.value is None else f" {finding.value:.3g}"
        limit = "" if finding.threshold is None else f" (limit {finding.threshold:.3g})"
        words = _text(finding.check + value, STYLE[finding.verdict])
        words.append_text(_text(f"{limit}: {finding.meaning}. Fix: {finding.fix}."))
        lines.append(Padding(words, (0, 0, 0, 2)))
    passed = [f.check for f in report.trust.findings if f.verdict == "green"]
    if passed:
        lines.append(Padding(_text(f"no concern: {', '.join(passed)}", "dim"), (0, 0, 0, 2)))
    return lines
