"""A comparison as a table on the console and as a page with its trade-offs drawn."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from textwrap import wrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluate import headline, printable, render, write
from ..stats import Interval
from ._compare import Comparison, Row
from ._compare_plot import scatters
from ._transfer_show import show_transfer, transfer_section

NOT_ADAPTIVE = "not adaptively evaluated"
_GAP = 2

_MASKS = " It masks the gradient, so that more may fall to stronger attacks."


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print a row for each entry: what it reaches, what it costs, and how far to believe it."""
    console.print(Text(printable(_headline(comparison)), style="bold"))
    console.print()
    for table in _tables(*_cells(comparison), console.width):
        console.print(table)
        console.print()
    if comparison.transfer is not None:
        show_transfer(comparison.transfer, console)
        console.print()
    for line in _notes(comparison):
        console.print(Text(printable(line), style="dim"))


def _tables(heads: list[str], rows: list[list[str]], width: int) -> list[Table]:
    """The columns in as many tables as fit into a width, each with the entries' names."""
    names = [Text(printable(name)) for name, *_ in rows]
    left = min(max(name.cell_len for name in names), width // 3)
    groups: list[list[list[Text]]] = []
    room = 0
    for head, *cells in zip(heads[1:], *(row[1:] for row in rows), strict=True):
        column = [Text(printable(head).replace(" ", "\n", 1)), *map(_stacked, cells)]
        wide = _GAP + max(line.cell_len for cell in column for line in cell.split())
        if not groups or wide > room:
            groups.append([])
            room = width - left
        groups[-1].append(column)
        room -= wide
    return [_table(names, left, columns) for columns in groups]


def _table(names: list[Text], left: int, columns: list[list[Text]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    table.add_column("", width=left, overflow="fold")
    for head, *_ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for name, *cells in zip(names, *(column[1:] for column in columns), strict=True):
        table.add_row(name, *cells)
    return table


def comparison_page(comparison: Comparison) -> str:
    """A self-contained HTML page: the table, and robust accuracy over what it costs."""
    heads, rows = _cells(comparison)
    return render(
        "workflows/compare.html.j2",
        headline=_headline(comparison),
        heads=heads,
        rows=rows,
        scatters=scatters(comparison.rows),
        notes=_notes(comparison),
        transfer="" if comparison.transfer is None else transfer_section(comparison.transfer),
    )


def save_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.json and comparison.html to a folder; raises OutputError."""
    contents = {
        "comparison.json": comparison.to_json(),
        "comparison.html": comparison_page(comparison),
    }
    return [write(folder / name, text.encode()) for name, text in contents.items()]


def _headline(comparison: Comparison) -> str:
    if not any(row.robust_gain for row in comparison.rows):
        return headline({row.name: row.report for row in comparison.rows})
    adding = [row for row in comparison.rows if row.robust_gain and row.robust_gain.low > 0]
    judged = [row for row in adding if row.adaptive is not False]
    first = comparison.rows[0]
    if not judged:
        return (
            f"Against attackers who know of it, no entry is shown to withstand more than "
            f"{first.name}."
        )
    best = max(judged, key=lambda row: row.report.robust_accuracy.value)
    assert best.robust_gain is not None
    return (
        f"{best.name} withstands most: robust accuracy is at most "
        f"{100 * best.report.robust_accuracy.value:.1f} %, {_points(best.robust_gain)} more than "
        f"{first.name}.{_MASKS if best.masking else ''}"
    )


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heads and cells; an interval stands in brackets. Columns that say nothing are left out."""
    rows = comparison.rows
    columns: list[tuple[str, Callable[[Row], str | None]]] = [
        ("clean", lambda row: str(row.report.clean_accuracy)),
        ("robust, at most", _robust),
        ("gain, points", _gain),
        ("certified, at least", lambda row: _told(row.report.certified_accuracy)),
        ("trust", lambda row: row.report.trust.verdict),
        *((f"unseen: {name}", _column(name)) for name in comparison.unseen),
        ("training", lambda row: _factor(row.training_cost)),
        ("inference", lambda row: _factor(row.inference_cost)),
        ("median distance", _distance),
    ]
    asked = any(row.not_certified for row in rows)
    shown = [
        (head, cell)
        for head, cell in columns
        if any(cell(row) for row in rows) or (asked and head.startswith("certified"))
    ]
    heads = ["", *(head for head, _ in shown)]
    return heads, [[row.name, *(cell(row) or "-" for _, cell in shown)] for row in rows]


def _robust(row: Row) -> str:
    mark = " masking" if row.masking else f" {NOT_ADAPTIVE}" if row.adaptive is False else ""
    return f"{row.report.robust_accuracy}{mark}"


def _gain(row: Row) -> str | None:
    return None if row.robust_gain is None else _points(row.robust_gain).replace(" points", "")


def _column(name: str) -> Callable[[Row], str | None]:
    return lambda row: _told(row.unseen.get(name))


def _told(figure: Interval | None) -> str | None:
    return None if figure is None else str(figure)


def _factor(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g} x"


def _distance(row: Row) -> str | None:
    nearest = row.report.median_distance
    return None if nearest is None or not isfinite(nearest.value) else nearest.in_units()


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def _stacked(cell: str) -> Text:
    """The figure, and below it in small its interval and what is to be said of it."""
    figure, bracket, rest = cell.partition(" [")
    if not bracket:
        return Text(printable(cell))
    interval, _, said = rest.partition("]")
    # Shares and gains in points are rounded, distances are not.
    brief = _brief(interval) if figure.endswith("%") or figure[0] in "+-" else interval
    words = Text.assemble(figure, (f"\n[{brief}]", "dim"))
    # On lines of their own, for a terminal's narrow columns.
    said = "\n".join(wrap(said, 14))
    return words.append(f"\n{said}", "yellow") if said else words


def _brief(interval: str) -> str:
    """The ends without decimals, for a terminal's narrow columns."""
    low, _, high = interval.partition(", ")
    sign = "+" if "+" in interval or "-" in interval else ""
    return f"{float(low):{sign}.0f}, {float(high):{sign}.0f}"


def _notes(comparison: Comparison) -> list[str]:
    first = comparison.first
    lines = [
        f"On {first.clean_accuracy.n:,} inputs; threat: {first.threat['region']}, success is "
        f"{first.threat['goal']}. Robust accuracy is an upper bound, certified accuracy a lower "
        "one; brackets are 95 % intervals, of differences on the same inputs (Tango's)."
    ]
    lines += [f"{name}: {told}; robust accuracy, at most." for name, told in
              comparison.unseen.items()]  # fmt: skip
    for row in comparison.rows:
        told = row.report.defences
        if told is not None and told.missing:
            lines.append(f"{row.name} was {NOT_ADAPTIVE}: {told.missing}.")
        if row.not_certified is not None:
            lines.append(f"{row.name} was not certified: {row.not_certified}.")
        if row.masking and told is not None:
            lines.append(
                f"{row.name} is masking: {told.plain} are right under a plain attack, "
                f"{told.through} under the same one led through the defence."
            )
    if any(row.training_cost for row in comparison.rows):
        lines.append("Training is told over standard training, as given; inference was measured.")
    return lines
