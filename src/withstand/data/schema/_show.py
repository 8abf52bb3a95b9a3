"""A table, and what is found in its file, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from ..._errors import listed
from ...threat.tabular import Feature, Table
from ._lint import Finding

_CHANGES = {"both": "yes", "increase": "up", "decrease": "down", "none": "no"}


def show_table(table: Table, console: Console) -> None:
    """What the columns are and what an attacker can do to them."""
    grid = Grid(box=None, pad_edge=False)
    for title in ("feature", "holds", "changes", "by at most", "cost"):
        grid.add_column(title, overflow="fold")
    made = {one.name: one.text for one in table.capability.derived}
    for one in table.capability.features:
        if one.name in made:
            grid.add_row(*map(escape, (one.name, f"= {made[one.name]}", "follows", "", "")))
        else:
            cells = (one.name, holds(one), _CHANGES[one.change], limit(one), price(one))
            grid.add_row(*map(escape, cells))
    console.print(grid)
    for group in table.capability.choices:
        cost = f", {group.cost:g} for another" if group.cost else ""
        console.print(escape(f"one of: {', '.join(group.columns)}{cost}"), highlight=False)
    for rule in table.capability.relations:
        console.print(escape(f"always: {rule.text}"), highlight=False)
    money = f" {table.currency}" if table.currency else ""
    told = (
        ("at most {} features change", table.capability.most_changed),
        ("an attacker spends at most {:g}" + money, table.capability.most_cost),
        ("at stake in a row: {}" + money, table.stake),
    )
    for text, value in told:
        if value is not None:
            console.print(escape(text.format(value)), highlight=False)


def holds(one: Feature) -> str:
    """What the values of a feature are, in words."""
    if one.labels is not None:
        return listed(one.labels, 6)
    ends = [_number(one, end) for end in (one.lower, one.upper)]
    kind = "dates" if one.date else "whole numbers" if one.integer else "numbers"
    if one.step is not None:
        kind = f"multiples of {one.step:g}"
    if not np.isfinite(one.lower) and not np.isfinite(one.upper):
        return kind
    return f"{kind}, {ends[0]} to {ends[1]}"


def _number(one: Feature, value: float) -> str:
    if not np.isfinite(value):
        return "any"
    if one.date:
        return str(np.datetime64(int(value), "D"))
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.7g}"


def limit(one: Feature) -> str:
    """How far a feature can be changed, in words."""
    parts = [] if one.most is None else [f"{one.most:g}"]
    parts += [] if one.share is None else [f"{100 * one.share:g} %"]
    if one.allow and one.labels is not None and one.values is not None:
        names = dict(zip(one.values, one.labels, strict=True))
        parts += [
            f"{names[before]} to {'/'.join(names[code] for code in after)}"
            for before, after in one.allow.items()
        ]
    return ", ".join(parts)


def price(one: Feature) -> str:
    """What changing a feature costs, in words."""
    parts = [f"{one.cost:g} each"] if one.cost else []
    parts += [f"{one.fixed:g} once"] if one.fixed else []
    return ", ".join(parts)


def table_values(table: Table) -> dict[str, Any]:
    """A table as plain values, for machines."""
    capability = table.capability
    made = {one.name: one.text for one in capability.derived}
    return {
        "features": [
            {
                "name": one.name,
                "holds": holds(one),
                "change": "none" if one.name in made else one.change,
                "lower": one.lower if np.isfinite(one.lower) else None,
                "upper": one.upper if np.isfinite(one.upper) else None,
                "values": None if one.labels is None else list(one.labels),
                "derived": made.get(one.name),
                "cost": one.cost,
                "fixed": one.fixed,
            }
            for one in capability.features
        ],
        "choices": [list(one.columns) for one in capability.choices],
        "relations": [one.text for one in capability.relations],
        "most_changed": capability.most_changed,
        "most_cost": capability.most_cost,
        "stake": table.stake,
        "currency": table.currency,
    }


def show_findings(found: list[Finding], console: Console) -> None:
    """Each finding with its fix."""
    for one in found:
        for line in (f"{one.level}: {one.where}", f"  {one.text}; {one.fix} [{one.check}]"):
            console.print(escape(line), highlight=False, soft_wrap=True)
    problems = sum(one.level == "problem" for one in found)
    notes = len(found) - problems
    console.print(f"{problems} problem{'s' * (problems != 1)}, {notes} note{'s' * (notes != 1)}")
