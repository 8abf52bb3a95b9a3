"""What the checks found, as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ._report import Finding, Trust
from ._words import VERDICT, by_weight, printable

if TYPE_CHECKING:
    from ._fix import Fixed

STYLE = {"green": "green", "amber": "yellow", "red": "bold red"}


def show_trust(trust: Trust, console: Console) -> None:
    """Print the verdict, every check with its figure, and what to do where one fired."""
    console.print(verdict_line(trust))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("check", "value", "limit", "verdict"):
        table.add_column(name, justify="left" if name in ("check", "verdict") else "right")
    findings = by_weight(trust.findings)
    for finding in findings:
        limit = "" if finding.threshold is None else f"{finding.threshold:.3g}"
        value = "" if finding.value is None else f"{finding.value:.3g}"
        style = STYLE[finding.verdict]
        table.add_row(Text(finding.check), value, limit, Text(finding.verdict, style))
    console.print(Padding(table, (1, 0)))
    for finding in findings:
        if finding.verdict != "green":
            console.print(_advice(finding))
    cost = trust.cost
    console.print(
        Text(
            f"asked by the checks themselves: {cost.forwards:,} forwards, {cost.backwards:,} "
            f"backwards, {cost.cpu_seconds:.1f} CPU s",
            "dim",
        )
    )


def show_fixed(fixed: Fixed, console: Console) -> None:
    """Print what was done, and the figures before and after it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "before", "after"):
        table.add_column(name)
    before, after = fixed.before, fixed.after
    rows = [
        ("robust accuracy, at most", before.robust_accuracy, after.robust_accuracy),
        ("clean accuracy", before.clean_accuracy, after.clean_accuracy),
        ("trust", before.trust.verdict, after.trust.verdict),
    ]
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
    console.print()
    for remedy in fixed.remedies:
        words = Text(printable(remedy.action))
        words.append(f" (for: {', '.join(remedy.checks)})", "dim")
        console.print(words)
    if not fixed.remedies:
        console.print(Text("No finding asks for another attack; nothing was done."))
    for finding in fixed.left:
        console.print(_advice(finding))
    console.print()
    show_trust(after.trust, console)


def verdict_line(trust: Trust) -> Text:
    """The verdict in a line."""
    verdict = trust.verdict
    return Text.assemble("trust: ", (verdict, STYLE[verdict]), f", {VERDICT[verdict]}")


def _advice(finding: Finding) -> Text:
    words = Text(printable(finding.check), STYLE[finding.verdict])
    words.append_text(Text(printable(f": {finding.meaning}. Fix: {finding.fix}.")))
    return words
