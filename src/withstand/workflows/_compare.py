"""Several reports side by side on the console."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluate import Report, headline


def show_comparison(reports: dict[str, Report], console: Console) -> None:
    """Print what the reports (by name) say of the same threat on the same data."""
    first = next(iter(reports.values()))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in reports:
        table.add_column(Text(name), justify="right")
    rows: dict[str, list[str]] = {
        "clean accuracy": [str(r.clean_accuracy) for r in reports.values()],
        "robust accuracy, at most": [str(r.robust_accuracy) for r in reports.values()],
        "fooling rate, at least": [str(r.fooling_rate) for r in reports.values()],
        "median distance to a mistake": [
            "-" if r.median_distance is None else f"{r.median_distance:.3g}"
            for r in reports.values()
        ],
        "trust": [r.trust.verdict for r in reports.values()],
        "forwards + backwards": [
            f"{r.cost.forwards + r.cost.backwards:,}" for r in reports.values()
        ],
        "CPU seconds": [f"{r.cost.cpu_seconds:.1f}" for r in reports.values()],
    }
    for label, values in rows.items():
        table.add_row(label, *values)
    console.print(Text(headline(reports), style="bold"))
    console.print()
    console.print(table)
    console.print()
    console.print(
        Text(
            f"On {first.clean_accuracy.n:,} inputs that the models have not seen; threat: "
            f"{first.threat['region']}, success is {first.threat['goal']}. Brackets are 95 % "
            "intervals.",
            style="dim",
        )
    )
