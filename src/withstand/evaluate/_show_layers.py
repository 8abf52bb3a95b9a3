"""What the layers of a system add, as text for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..stats import Interval
from ._layers import Layers
from ._report import Report
from ._show_trust import STYLE
from ._words import BOUND, attacker, printable

_STYLE = {"adds": "green", "adds nothing": "yellow", "masks": "bold red", "harms": "bold red"}


def show_layers(layers: Layers, console: Console) -> None:
    """Print the whole system's figures, those without each layer, and what each adds."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "right and not flagged", "robust accuracy, at most", "trust", "the layer"):
        table.add_column(name)
    table.add_row("all layers", *_figures(layers.served, layers.whole), "", style="bold")
    for layer in layers.layers:
        figures = _figures(layer.served, layers.without[layer.name])
        verdict = Text(layer.verdict, _STYLE[layer.verdict])
        table.add_row(Text(printable(f"without {layer.name}")), *figures, verdict)
    console.print(Text(printable(f"{attacker(layers.whole)}."), "bold"))
    console.print()
    console.print(table)
    console.print()
    for layer in layers.layers:
        console.print(Text(printable(layer.statement)))
    for note in layers.notes:
        console.print(Text(printable(f"note: {note}")))
    console.print()
    console.print(Text(f"{BOUND} What a layer adds has Tango's, on pairs.", "dim"))


def _figures(served: Interval, report: Report) -> tuple[str, str, Text]:
    verdict = report.trust.verdict
    return (
        str(served),
        str(report.robust_accuracy),
        Text(verdict, STYLE[verdict]),
    )
