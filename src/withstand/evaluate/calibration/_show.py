"""A calibration as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .._words import printable
from ._columns import ColumnFit
from ._factor import Factor
from ._judge import Judgement
from ._result import Calibration, Column

_ROWS = 12
_WHAT = {
    "pairs": "{} pairs that differ",
    "samples": "{} benign and {} suspected rows",
    "drift": "{} benign rows before and {} after",
}
_STYLE = {"too tight": "bold red", "too loose": "yellow", "fits": "green", "unknown": "yellow"}


def show(
    calibration: Calibration,
    judgement: Judgement | None,
    console: Console,
    columns: Sequence[ColumnFit] | None = None,
) -> None:
    """Print the radii by norm and by feature, the distances, and whether what is present fits."""
    parts: list[list[RenderableType]] = [
        [_headline(calibration)],
        [_radii(calibration)],
        _features(calibration),
        _transport(calibration),
        _judged(judgement) if judgement is not None else [],
        _compared(columns) if columns is not None else [],
        [Text(f"note: {note}") for note in calibration.notes],
        [Text(f"A radius here is {calibration.estimand}.", "dim")],
    ]
    for number, part in enumerate(part for part in parts if part):
        if number:
            console.print()
        for line in part:
            console.print(line)


def show_factor(factor: Factor, console: Console) -> None:
    """Print the factor, its control, and what they rest on."""
    times, control = factor.factor.in_units(4), factor.control.in_units(4)
    rows = f"{factor.factor.n:,} attacked rows of {factor.groups:,} accounts"
    console.print(
        Text(f"{printable(factor.column)} is multiplied by {times}, from {rows}"),
        style="bold",
    )
    console.print(Text(f"control {control}: benign rows in their place, so about 1"))
    if factor.left_out:
        console.print(Text(f"left out: {factor.left_out:,} rows of accounts with few benign ones"))
    for note in factor.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(f"{100 * factor.confidence:g} % intervals, over accounts", "dim"))


def _headline(calibration: Calibration) -> Text:
    what = _WHAT[calibration.source].format(*(f"{n:,}" for n in calibration.n))
    return Text(
        f"Radii that hold {100 * calibration.coverage:g} %, from {what} "
        f"({100 * calibration.confidence:g} % intervals)",
        "bold",
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=i > 0)
    return table


def _radii(calibration: Calibration) -> Table:
    table = _table("norm", "radius")
    for norm, radius in calibration.radii.items():
        table.add_row(norm, radius.in_units(4))
    return table


def _features(calibration: Calibration) -> list[RenderableType]:
    """The features that move furthest, those with categories by their flips."""
    order = sorted(calibration.columns, key=lambda column: -_reach(column))
    flips = any(column.flips for column in order)
    moved = calibration.source != "pairs"
    table = _table("feature", "kind", "radius", *["flips"] * flips, "transport", *["moved"] * moved)
    for column in order[:_ROWS]:
        cells = [column.kind, "" if column.radius is None else column.radius.in_units(4)]
        cells += ["" if column.flips is None else str(column.flips)] * flips
        cells += [f"{column.transport:.4g}"] + ["yes" if column.moved else "no"] * moved
        table.add_row(Text(printable(column.name)), *cells)
    rest = len(order) - _ROWS
    more = [Text(f"and {rest:,} features that move less", "dim")] if rest > 0 else []
    return [table, *more]


def _reach(column: Column) -> float:
    return column.transport if column.radius is None else column.radius.value


def _transport(calibration: Calibration) -> list[RenderableType]:
    found = calibration.transport
    if found is None:
        return []
    return [
        Text(
            f"Optimal transport of {found.rows:,} rows: mean Euclidean change "
            f"{found.distance:.4g}; rows dealt at random lie up to {found.floor:.4g} apart "
            f"(p {found.p_value:.2g})."
        )
    ]


def _judged(judgement: Judgement) -> list[RenderableType]:
    eps = "" if judgement.eps is None else f", {judgement.norm} {judgement.eps:.4g}"
    line = Text.assemble(
        f"The present radius{eps}: ",
        (judgement.fit, _STYLE[judgement.fit]),
        f". {judgement.meaning[0].upper()}{judgement.meaning[1:]}. Fix: {judgement.fix}.",
    )
    lines: list[RenderableType] = [line]
    if judgement.outside is not None:
        lines.append(Text(f"Changes that lie outside the present region: {judgement.outside}"))
    for price in judgement.prices:
        at = "" if price.at == price.radius else f" (measured at {price.at:.4g})"
        lines.append(
            Text(f"Robust accuracy at {price.radius:.4g}, at most: {price.robust_accuracy}{at}")
        )
    return lines


def _compared(columns: Sequence[ColumnFit]) -> list[RenderableType]:
    """The largest changes that the table's file allows, column by column."""
    if not columns:
        return [Text("No column of numbers moves more than by chance.")]
    table = _table("column", "most", "observed", "fit")
    table.add_column("fix")
    for one in columns:
        table.add_row(
            Text(printable(one.name)),
            "none" if one.most is None else f"{one.most:.4g}",
            one.observed.in_units(4),
            Text(one.fit, _STYLE[one.fit]),
            one.fix,
        )
    return [Text("The largest changes that the table's file allows:"), table]
