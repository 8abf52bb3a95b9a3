"""The report as text for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...evaluate import printable
from ._report import DetectionReport
from ._words import BOUND, COLOUR, HEADS, by_weight, cells, figures, split

_STYLE = {"green": "green", "amber": "yellow", "red": "bold red"}


def show(report: DetectionReport, console: Console) -> None:
    """Print the verdict, the figures, every attack, and what the checks found."""
    verdict = report.verdict
    colour = _STYLE[COLOUR[verdict.level]]
    console.print(Text(printable(verdict.words), f"bold {colour.removeprefix('bold ')}"))
    for reason in verdict.reasons:
        console.print(Text(printable(reason)))
    console.print()
    table = _table()
    for name, value, words in figures(report):
        table.add_row(name, Text(value), Text(words, "dim"))
    console.print(table)
    for title, rows in split(report).items():
        if rows:
            console.print(Text(f"\n{title}", "bold"))
            table = _table(*HEADS)
            for row in rows:
                table.add_row(*(Text(printable(cell)) for cell in cells(row)))
            console.print(table)
    console.print()
    for finding in by_weight(report.trust.findings):
        told = f": {finding.meaning}." + (f" {finding.fix}." if finding.fix else "")
        line = Text(finding.check, _STYLE[finding.verdict])
        line.append_text(Text(printable(told), "default"))
        console.print(Padding(line, (0, 0, 0, 2)))
    console.print(Text(f"\n{BOUND}", "dim"))


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=bool(heads))
    for i, name in enumerate(heads or ("", "", "")):
        table.add_column(name, justify="right" if heads and i else "left")
    return table
