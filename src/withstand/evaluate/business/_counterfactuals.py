"""A few fooled rows that show an analyst how the model is gamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Derived
from ._business import Step
from ._parts import Part
from ._weakness import part_text

Array = NDArray[Any]
_SHOWN = 10


def chosen(parts: Sequence[Part], x: Array, x_adv: Array, cost: Array, value: Array) -> list[int]:
    """The places of up to ten of the rows x_adv (B, F), made of x (B, F), the cheapest first.

    Each way of fooling, a set of parts that changed, comes once before any comes twice, the most
    frequent ones first; of each way the row of the largest value (B,), and of those the cheapest.
    """
    moved = np.stack([part.moved(x, x_adv) for part in parts], 1) if parts else x[:, :0] > 0
    ways: dict[tuple[int, ...], list[int]] = {}
    # Rows of the same figures are told apart by their content, never by their order.
    content = [x[row].tobytes() + x_adv[row].tobytes() for row in range(len(x))]
    for row in sorted(range(len(x)), key=lambda row: (-value[row], cost[row], content[row])):
        ways.setdefault(tuple(np.flatnonzero(moved[row]).tolist()), []).append(row)
    ranked = sorted(ways.items(), key=lambda item: (-len(item[1]), item[0]))
    turns = [rows[turn] for turn in range(_SHOWN) for _, rows in ranked if turn < len(rows)]
    return sorted(turns[:_SHOWN], key=lambda row: (cost[row], -value[row], content[row]))


def steps_of(
    parts: Sequence[Part],
    derived: Sequence[Derived],
    x: Array,
    x_adv: Array,
    before: Mapping[str, Array],
    after: Mapping[str, Array],
) -> list[tuple[Step, ...]]:
    """What changed in each of the rows x_adv (B, F), made of x (B, F), the dearest first.

    before, after: the same as columns of the table's file. What follows from other columns is last.
    """
    found: list[list[Step]] = [[] for _ in x]
    priced = any(part.priced for part in parts)
    for part in parts:
        moved, spent = part.moved(x, x_adv), part.spent(x, x_adv)
        texts = part_text(part, x, before), part_text(part, x_adv, after)
        for row in np.flatnonzero(moved):
            cost = float(spent[row]) if priced else None
            told = (text[row] for text in texts)
            found[row].append(_step(part.name, *told, cost=cost, follows=False))
    for steps in found:
        steps.sort(key=lambda step: -(step.cost or 0))
    for item in derived:
        old, new = before[item.name], after[item.name]
        # Computed anew in single precision, a value may differ in its last digit alone.
        words = old.dtype.kind == "O"
        same = old == new if words else np.isclose(old, new, rtol=item.precision, atol=0)
        for row in np.flatnonzero(~np.asarray(same, bool)):
            told = (str(c[row]) if words else f"{c[row]:.6g}" for c in (old, new))
            found[row].append(_step(item.name, *told, cost=None, follows=True))
    return [tuple(steps) for steps in found]


def _step(name: str, before: str, after: str, *, cost: float | None, follows: bool) -> Step:
    return Step(feature=name, before=before, after=after, cost=cost, follows=follows)
