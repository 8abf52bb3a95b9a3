"""Who fools whom, for the console and for a report's page."""

from __future__ import annotations

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluate import render
from ._transfer import TransferMatrix


def show_transfer(matrix: TransferMatrix, console: Console) -> None:
    """Print the matrix: a row for each source, a column for each victim."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("made on")
    for name in matrix.models:
        table.add_column(Text(f"shown to {name}"), justify="right")
    for source, row in matrix.rates.items():
        cells = [
            Text(str(rate), style="dim" if victim == source else "") for victim, rate in row.items()
        ]
        table.add_row(Text(source), *cells)
    clean = [Text(str(rate)) for rate in matrix.clean_accuracy.values()]
    table.add_row(Text("clean accuracy", style="dim"), *clean)
    console.print(Text(_headline(matrix), style="bold"))
    console.print()
    console.print(table)
    console.print()
    console.print(Text(_conditions(matrix), style="dim"))


def transfer_section(matrix: TransferMatrix) -> Markup:
    """The matrix as a section of a report's page (`evaluate.page`)."""
    return Markup(
        render(
            "workflows/transfer.html.j2",
            matrix=matrix,
            headline=_headline(matrix),
            conditions=_conditions(matrix),
        )
    )


def _conditions(matrix: TransferMatrix) -> str:
    return (
        "Fooling rates among the inputs that both models answer rightly; threat: "
        f"{matrix.threat['region']}, success is {matrix.threat['goal']}. One attack makes all "
        f"examples ({matrix.attack.partition('(')[0]}), so that a model shown its own (dim) fares "
        "better than in a whole evaluation. Brackets are 95 % intervals."
    )


def _headline(matrix: TransferMatrix) -> str:
    pair = matrix.strongest
    if pair is None:
        return "No data: no input is answered rightly by two models, one of them with gradients."
    rate = matrix.rates[pair[0]][pair[1]]
    return f"Examples made on {pair[0]} fool {pair[1]} at {rate}, the most between two models."
