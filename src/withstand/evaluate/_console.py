"""The report as text for a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._report import Report
from ._words import BOUND, VERDICT, headline, worst_slices

_STYLE = {"green": "green", "amber": "yellow", "red": "bold red"}


def show(report: Report, console: Console) -> None:
    """Print the report: headline, figures, cascade, trust, and what is left to say."""
    console.print(Group(*_parts(report)))


def _parts(report: Report) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(headline(report), style="bold"),
        Text(),
        _figures(report),
        Text(),
        _cascade(report),
        Text(),
    ]
    if report.curve:
        parts += [_curve(report), Text()]
    parts.append(_trust(report))
    parts += [Text(f"note: {note}") for note in report.notes]
    parts.append(Text(BOUND, style="dim"))
    return parts


def _figures(report: Report) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("clean accuracy", str(report.clean_accuracy))
    table.add_row("robust accuracy", f"{report.robust_accuracy}  at most", style="bold")
    table.add_row("fooling rate", f"{report.fooling_rate}  at least")
    if report.certified_accuracy is not None:
        table.add_row("certified accuracy", f"{report.certified_accuracy}  at least")
    for name, value in worst_slices(report):
        table.add_row(name, value)
    for spread in report.perceptibility:
        table.add_row(
            f"change, {spread.measure}", f"median {spread.median:.3g}, worst {spread.worst:.3g}"
        )
    if report.median_distance is not None:
        table.add_row("median distance", f"{report.median_distance:.3g} to the nearest mistake")
    if report.severity is not None:
        cost = report.severity
        table.add_row(
            "cost of mistakes",
            f"{cost.clean_mean:.3g} a sample clean, {cost.robust_mean:.3g} under attack, "
            f"{cost.worst:.3g} at worst",
        )
    cost_of = report.cost
    table.add_row(
        "spent",
        f"{cost_of.forwards:,} forwards, {cost_of.backwards:,} backwards, "
        f"{cost_of.cpu_seconds:.1f} CPU s",
    )
    return table


def _cascade(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("attack")
    for name in ("samples", "fooled", "forwards", "CPU s"):
        table.add_column(name, justify="right")
    for stage in report.attacks:
        table.add_row(
            stage.title,
            f"{stage.samples:,}",
            f"{stage.fooled:,}",
            f"{stage.cost.forwards:,}",
            f"{stage.cost.cpu_seconds:.1f}",
        )
        if stage.note:
            table.add_row(Text(f"  {stage.note}", style="dim"))
    return table


def _curve(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("radius", justify="right")
    table.add_column("robust accuracy, at most")
    step = max(len(report.curve) // 8, 1)
    for point in report.curve[::step]:
        bar = "█" * round(30 * point.robust_accuracy.value)
        table.add_row(f"{point.eps:.3g}", f"{bar} {100 * point.robust_accuracy.value:.0f} %")
    return table


def _trust(report: Report) -> RenderableType:
    verdict = report.trust.verdict
    lines = Text.assemble("trust: ", (verdict, _STYLE[verdict]), f", {VERDICT[verdict]}")
    for finding in report.trust.findings:
        if finding.verdict != "green":
            value = "" if finding.value is None else f" {finding.value:.3g}"
            lines.append(f"\n  {finding.check}{value} ", style=_STYLE[finding.verdict])
            limit = "" if finding.threshold is None else f"(limit {finding.threshold:.3g})"
            lines.append(f"{limit}: {finding.meaning}. Fix: {finding.fix}.")
    return lines
