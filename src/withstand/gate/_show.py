"""The gate as a table, for a terminal and as Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluate import printable
from ._judge import Gate

_STYLE = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
_MEANS = {
    "pass": "every limit is met",
    "fail": "at least one limit is missed",
    "inconclusive": "nothing is missed for certain, but not every limit is met for certain",
}


def show(gate: Gate, console: Console) -> None:
    """Print the outcome, a line for each limit, and where the figures come from."""
    console.print(
        Text.assemble("gate: ", (gate.outcome, _STYLE[gate.outcome]), f", {_means(gate)}")
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("limit", "asked for", "found", "outcome"):
        table.add_column(name, no_wrap=True)
    for check in gate.checks:
        outcome = Text(check.outcome, _STYLE[check.outcome])
        table.add_row(check.metric, check.limit, printable(check.found), outcome)
    console.print(table)
    for check in gate.checks:
        if check.words:
            console.print(Text(printable(f"{check.metric}: {check.words}")))
    for line in _basis(gate):
        console.print(Text(printable(line), "dim"))


def markdown(gate: Gate) -> str:
    """The same as Markdown, such as a CI's summary of a job."""
    rows = "\n".join(
        "| " + " | ".join(map(_cell, (c.metric, c.limit, c.found, c.outcome, c.words))) + " |"
        for c in gate.checks
    )
    basis = "\n".join(f"- {_cell(line)}" for line in _basis(gate))
    return (
        f"## Robustness gate: {gate.outcome}\n\n{_means(gate).capitalize()}.\n\n"
        f"| limit | asked for | found | outcome | why |\n|---|---|---|---|---|\n{rows}\n\n{basis}\n"
    )


def _means(gate: Gate) -> str:
    return _MEANS[gate.outcome]


def _basis(gate: Gate) -> list[str]:
    measured = gate.measured
    lines = []
    if measured.threat:
        threat = measured.threat
        lines.append(f"threat: {threat['region']}, access {threat['access']}, {threat['goal']}")
    basis = measured.basis
    if basis.get("shown"):
        lines.append(
            f"the last release's examples: {basis['shown']:,} shown, {basis['fell_to_shown']:,} "
            "fooled the model again"
        )
    lines.append(str(basis["how"]))
    if gate.spent:
        spent = gate.spent
        lines.append(
            f"spent: {spent['forwards']:,.0f} forwards, {spent['backwards']:,.0f} backwards, "
            f"{spent['wall_seconds']:.1f} s"
        )
    return lines


def _cell(text: str) -> str:
    """Text that ends no cell, starts no markup and stays on its line."""
    line = " ".join(printable(text).split())
    for mark in "\\`*_|<[":
        line = line.replace(mark, f"\\{mark}")
    return line
