"""The features that give way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import wilson
from ._business import Move, Typical, Weakness
from ._parts import Part

Array = NDArray[Any]
_MOVES = 10


def weaknesses(
    parts: Sequence[Part],
    x: Array,
    x_adv: Array,
    before: Mapping[str, Array],
    after: Mapping[str, Array],
) -> tuple[Weakness, ...]:
    """What fooled rows x_adv (B, F), made of x (B, F), did to each part that can change.

    before, after: the same as columns of the table's file. Those that changed in most rows come
    first, of them those that did so alone, then the cheaper ones.
    """
    moved = {part.name: part.moved(x, x_adv) for part in parts}
    count = np.sum([*moved.values(), np.zeros(len(x), int)], axis=0)
    found = [
        _weakness(part, moved[part.name], count == 1, x, x_adv, before, after)
        for part in parts
        if part.changeable or moved[part.name].any()
    ]
    return tuple(sorted(found, key=_rank))


def _rank(one: Weakness) -> tuple[float, int, float, str]:
    share = one.share.value if one.share.n else 0.0
    return -share, -one.alone, one.cost.median if one.cost else 0.0, one.feature


def _weakness(
    part: Part,
    moved: Array,
    single: Array,
    x: Array,
    x_adv: Array,
    before: Mapping[str, Array],
    after: Mapping[str, Array],
) -> Weakness:
    measured = part.kind in ("number", "date")
    change = _change(part, x, x_adv, before, after)[moved]
    moves = Counter[tuple[str, str]]()
    if not measured:
        pairs = zip(part_text(part, x, before), part_text(part, x_adv, after), strict=True)
        moves.update(pair for pair, here in zip(pairs, moved, strict=True) if here)
    ranked = sorted(moves.items(), key=lambda item: (-item[1], item[0]))
    shown = tuple(Move(before=a, after=b, count=n) for (a, b), n in ranked[:_MOVES])
    return Weakness(
        feature=part.name,
        kind=part.kind,
        unit="days" if part.kind == "date" else "",
        share=wilson(int(moved.sum()), len(moved)),
        alone=int((moved & single).sum()),
        raised=int((change > 0).sum()) if measured else 0,
        lowered=int((change < 0).sum()) if measured else 0,
        size=typical(np.abs(change)) if measured else None,
        moves=shown,
        others=sum(moves.values()) - sum(move.count for move in shown),
        cost=typical(part.spent(x, x_adv)[moved]) if part.priced else None,
    )


def _change(
    part: Part, x: Array, x_adv: Array, before: Mapping[str, Array], after: Mapping[str, Array]
) -> Array:
    """By how much a number (B,) grew: the file's decimals have less noise than the rows."""
    if part.kind == "number":
        return np.asarray(after[part.name] - before[part.name])
    return np.asarray(x_adv[:, part.places[0]] - x[:, part.places[0]])


def part_text(part: Part, rows: Array, columns: Mapping[str, Array]) -> list[str]:
    """What rows (B, F), and the same as columns of the table's file, have in a part, as text."""
    if part.kind != "choice":
        return [text_of(one) for one in columns[part.name].tolist()]
    chosen = rows[:, list(part.places)].argmax(1)
    return [part.columns[place].name for place in chosen]


def text_of(value: object) -> str:
    """A value of the table's file, without a fraction that says nothing."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def typical(values: Array) -> Typical | None:
    """The median and the largest of values (n,); None of none."""
    if not len(values):
        return None
    return Typical(median=float(np.median(values)), largest=float(values.max()))
