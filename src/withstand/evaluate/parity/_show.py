"""A comparison of two pipelines as text for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._words import percent, printable
from ._result import Parity

_STYLE = {"green": "green", "amber": "yellow", "red": "bold red"}
_MOST = 5


def show(parity: Parity, console: Console) -> None:
    """Print the verdict, the figures, and the steps that explain most."""
    finding, difference = parity.finding, parity.difference
    console.print(
        Text.assemble((f"{finding.check}: ", ""), (finding.verdict, _STYLE[finding.verdict]))
    )
    fix = f" Fix: {finding.fix}." if finding.verdict != "green" else ""
    console.print(Text(printable(f"{_sentence(finding.meaning)}{fix}")))
    console.print()
    figures = [("inputs compared", f"{parity.n:,}")]
    if parity.flips.n:
        figures.append(("labels that flip", str(parity.flips)))
    if difference.largest is not None and difference.median is not None:
        figures.append(
            (
                f"difference of {difference.unit}",
                f"median {difference.median:.3g}, largest {difference.largest:.3g}, of a spread of "
                f"{difference.spread:.3g}",
            )
        )
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, words in figures:
        table.add_row(name, words)
    console.print(table)
    if parity.suspects:
        console.print()
        console.print(_ranked(parity))


def _ranked(parity: Parity) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("step")
    table.add_column("what the served pipeline would be doing")
    table.add_column("left", justify="right", no_wrap=True)
    for each in parity.suspects[:_MOST]:
        left = percent(each.left) if each.left < 1 else "all"
        table.add_row(Text(printable(" and ".join(each.steps))), Text(printable(each.change)), left)
    return table


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
