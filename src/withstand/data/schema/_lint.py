"""Rules of a table that cannot mean what they say: found before an attack, not after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._errors import listed
from ...config import TableConfig
from ...threat.tabular import Capability, Feature, Relation, Table, label_of, span
from .._columns import Columns
from ._linear import contradiction, derived_halves, follows, halves
from ._random import random_rows

Array = NDArray[Any]

_TRIED, _CHUNK = 20_000, 50_000
_SINGLE = 2**24


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to look at. level: a problem, or a note on what may well be meant.

    where: the feature or the rule; text: what is the matter; fix: what to do.
    """

    check: str
    level: Literal["problem", "note"]
    where: str
    text: str
    fix: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def lint(config: TableConfig, table: Table, columns: Columns | None = None) -> list[Finding]:
    """What is wrong with a table's file, problems first; columns: the data, where there is some.

    Raises DataError for data that the table cannot read.
    """
    rows = None if columns is None else table.encode(columns)
    low, high = _ends(table, rows)
    found = [
        *_features(config, table, rows),
        *_budget(table.capability),
        *_relations(table.capability, _ends(table, None), (low, high), rows),
        *(_rows(table, rows, columns) if rows is not None and columns is not None else ()),
    ]
    return sorted(found, key=lambda one: one.level == "note")


def _ends(table: Table, rows: Array | None) -> tuple[Array, Array]:
    """The least and largest value (F,) of each feature: its range, else that of the data."""
    low, high = (np.array(end, np.float64) for end in (table.domain.lower, table.domain.upper))
    if rows is not None:
        low = np.where(np.isfinite(low), low, rows.min(0))
        high = np.where(np.isfinite(high), high, rows.max(0))
    capability = table.capability
    for one in capability.order:
        place = capability.index[one.name]
        with np.errstate(all="ignore"):
            told = span(
                one.tree, lambda name: (low[capability.index[name]], high[capability.index[name]])
            )
        low[place], high[place] = (told.low, told.high) if told.sure else (-np.inf, np.inf)
    return low, high


def _features(config: TableConfig, table: Table, rows: Array | None) -> Iterator[Finding]:
    capability = table.capability
    made = {one.name for one in capability.derived}
    chosen = {name for group in capability.choices for name in group.columns}
    if all(one.change == "none" or one.name in made for one in capability.features):
        yield _problem(
            "nothing-changes", "features", "no feature can be changed", "take change: none from one"
        )
    for place, one in enumerate(capability.features):
        told = config.features[one.name].model_fields_set
        values = None if rows is None else rows[:, place]
        if one.name in made:
            if keys := sorted(told & {"change", "cost", "fixed", "most", "share", "allow"}):
                yield _problem(
                    "derived-with-keys",
                    one.name,
                    f"is derived, so {listed(keys)} says nothing",
                    f"take out {listed(keys)}",
                )
            continue
        yield from _one(one, values, chosen=one.name in chosen)
        if values is not None and (values == values[0]).all():
            yield _note(
                "constant",
                one.name,
                f"is the same in all {len(values):,} rows",
                "say change: none, if an attacker cannot change it either",
            )


def _one(one: Feature, values: Array | None, *, chosen: bool) -> Iterator[Finding]:
    """What a feature says of itself."""
    if one.change == "none" and (one.cost or one.fixed):
        yield _problem(
            "cost-of-nothing",
            one.name,
            "cannot be changed, and has a cost",
            "take the cost out, or change: none",
        )
    if one.change == "none" and (one.most or one.share or one.allow):
        keys = [key for key in ("most", "share", "allow") if getattr(one, key)]
        yield _problem(
            "limit-of-nothing",
            one.name,
            f"cannot be changed, and has {listed(keys)}",
            f"take out {listed(keys)}, or change: none",
        )
    least = _least_step(one)
    if one.change != "none" and not chosen:
        if one.lower == one.upper and one.values is None:
            yield _problem(
                "cannot-move",
                one.name,
                f"can be changed, and is {one.lower:g} at any rate",
                "say change: none, or widen its range",
            )
        elif one.most is not None and one.most < least:
            yield _problem(
                "cannot-move",
                one.name,
                f"changes by {one.most:g} at most, in steps of {least:g}",
                "raise most, or say change: none",
            )
        if one.values is not None and len(one.values) == 1:
            yield _problem(
                "cannot-move",
                one.name,
                "can be changed, and has one value only",
                "add the others, or say change: none",
            )
    size = max((abs(end) for end in (one.lower, one.upper) if np.isfinite(end)), default=0.0)
    if least and size and float(np.spacing(np.float32(size))) > least:
        yield _problem(
            "single-precision",
            one.name,
            f"reaches {size:.9g} in steps of {least:g}, which single precision cannot tell apart",
            "rescale it, or subtract what all rows have",
        )
    yield from _categories(one, values)


def _categories(one: Feature, values: Array | None) -> Iterator[Finding]:
    if one.labels is None or one.values is None:
        return
    codes = dict(zip(one.values, one.labels, strict=True))
    there = set(one.values if values is None else np.unique(values).tolist())
    reached = {after for before, told in one.allow.items() for after in told if after != before}
    # Those that allow does not name can become any other.
    free = [code for code in codes if code not in one.allow]
    if one.change != "none" and not free:
        for code, label in codes.items():
            if code in reached:
                continue
            if values is not None and code not in there:
                yield _problem(
                    "unreachable-category",
                    one.name,
                    f"no row is {label!r}, and allow lets none become it",
                    "take it out of values, or add it to allow",
                )
            else:
                yield _note(
                    "unreachable-category",
                    one.name,
                    f"allow lets no other become {label!r}",
                    "add it to allow, if an attacker could",
                )
    absent = [codes[code] for code in codes if code not in there and (free or code in reached)]
    if absent and values is not None:
        yield _note(
            "absent-category",
            one.name,
            f"no row is {listed(map(repr, absent), 4)}",
            "take it out of values, if the model never saw it",
        )


def _least_step(one: Feature) -> float:
    return one.step or float(one.integer)


def _budget(capability: Capability) -> Iterator[Finding]:
    """Whether anything can be paid for."""
    if capability.most_cost is None:
        return
    outside = {one.name for one in capability.derived}
    outside |= {name for group in capability.choices for name in group.columns}
    by = {one.name: one for one in capability.features}
    prices = [
        one.fixed + (0.0 if one.values else one.cost * _least_step(one))
        for one in capability.features
        if one.change != "none" and one.name not in outside
    ]
    for group in capability.choices:
        each = sorted(by[name].fixed + by[name].cost for name in group.columns)
        prices.append(group.cost + sum(each[:2]))
    if prices and min(prices) > capability.most_cost:
        yield _problem(
            "nothing-affordable",
            "most_cost",
            f"is {capability.most_cost:g}, and the cheapest change costs {min(prices):g}",
            "raise most_cost, or lower the costs",
        )


def _relations(
    capability: Capability, ends: tuple[Array, Array], likely: tuple[Array, Array],
    rows: Array | None,
) -> Iterator[Finding]:  # fmt: skip
    """What the relations say; ends: of the ranges, where something is proven; likely: of the data,
    where rows are drawn."""
    low, high = ends
    index = dict(capability.index)
    held = _immutable(capability)
    tried = random_rows(capability, _TRIED, likely)
    always = derived_halves(capability)
    seen: dict[Any, str] = {}
    linear = [halves(one.tree, index) for one in capability.relations]
    dead = set()
    for number, one in enumerate(capability.relations):
        if one.tree in seen:
            yield _problem(
                "duplicate", one.text, f"says the same as {seen[one.tree]!r}", "take one out"
            )
            dead.add(number)
            continue
        seen[one.tree] = one.text
        if one.columns <= held:
            yield _note(
                "immutable-relation",
                one.text,
                "speaks only of what nobody can change",
                "let one of its columns change, or keep it for a detector or a guard",
            )
        yield from _verdict(one, capability, low, high, tried, number, dead)
    kept = [n for n, one in enumerate(linear) if one is not None and n not in dead]
    # What is derived is as large as its equation says.
    free = np.isin(np.arange(len(low)), [index[one.name] for one in capability.derived])
    low, high = np.where(free, -np.inf, low), np.where(free, np.inf, high)
    together = contradiction([linear[n] or [] for n in kept], always, low, high)
    if together is not None:
        named = [capability.relations[kept[n]].text for n in together]
        yield _problem(
            "contradictory",
            "; ".join(named),
            "no row within the ranges fulfils it"
            if len(named) < 2
            else f"no row within the ranges fulfils these {len(named)} together",
            "correct one of them, or a range",
        )
        return
    for number in kept:
        rest = [half for n in kept if n != number for half in linear[n] or ()]
        if follows(linear[number] or [], [*rest, *always], low, high):
            yield _note(
                "implied",
                capability.relations[number].text,
                "follows from the other relations",
                "take it out, unless it helps to read",
            )


def _verdict(
    one: Relation,
    capability: Capability,
    low: Array,
    high: Array,
    tried: Array,
    number: int,
    dead: set[int],
) -> Iterator[Finding]:
    """Whether a relation says anything within the ranges, and whether it can be fulfilled."""
    index = capability.index
    told = one.within(lambda name: (low[index[name]], high[index[name]]))
    if told.must:
        dead.add(number)
        yield _problem(
            "always-holds",
            one.text,
            "holds whatever a row within the ranges is",
            "correct it: it forbids nothing",
        )
    elif not told.may:
        dead.add(number)
        yield _problem(
            "contradictory",
            one.text,
            "no row within the ranges fulfils it",
            "correct it, or a range",
        )
    elif one.holds(tried, index).all():
        yield _note(
            "hard-to-break",
            one.text,
            f"none of {len(tried):,} random rows breaks it",
            "make sure that it can be broken at all",
        )


def _immutable(capability: Capability) -> frozenset[str]:
    """The columns that nobody can change, and what follows from such alone."""
    made = {one.name for one in capability.derived}
    held = {
        one.name for one in capability.features if one.change == "none" and one.name not in made
    }
    for item in capability.order:
        if item.columns <= held:
            held.add(item.name)
    return frozenset(held)


def _rows(table: Table, rows: Array, columns: Columns) -> Iterator[Finding]:
    """What the data says of the rules."""
    counts: dict[str, list[int]] = {}
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK].astype(np.float64)
        for rule, broken in table.capability.broken(part, part):
            if broken.any():
                told = counts.setdefault(rule, [0, start + int(np.flatnonzero(broken)[0])])
                told[0] += int(broken.sum())
    for rule, (count, first) in counts.items():
        yield _problem(
            "rows-break-it",
            rule,
            f"{count:,} of {len(rows):,} rows break it, first row {first} "
            f"({_shown(table, rule, rows[first])})",
            "correct the rule, give it a tolerance (~ 0.01), or drop those rows",
        )
    for place, one in enumerate(table.capability.features):
        if one.integer and one.labels is None and not one.date:
            raw = columns[one.name]
            if raw.dtype.kind in "iuf" and np.abs(rows[:, place]).max() >= _SINGLE:
                merged = raw != rows[:, place].astype(raw.dtype)
                if merged.any():
                    first = int(np.flatnonzero(merged)[0])
                    yield _problem(
                        "single-precision",
                        one.name,
                        f"is {label_of(raw[first])} in row {first}, which single precision cannot "
                        f"hold, as in {merged.sum():,} rows",
                        "rescale it, or subtract what all rows have",
                    )
    money = table.at_stake(rows)
    if money is not None and (bad := ~(np.isfinite(money) & (money >= 0))).any():
        first = int(np.flatnonzero(bad)[0])
        yield _problem(
            "stake",
            table.stake or "",
            f"is {money[first]:g} in row {first}, one of {bad.sum():,} such rows",
            "give an expression that is at least 0 in every row",
        )


def _shown(table: Table, rule: str, row: Array) -> str:
    """The values of a row that a rule speaks of."""
    decoded = table.decode(row[None])
    named = [name for name in table.columns if _speaks(rule, name)]
    shown = named or list(table.columns)
    return listed((f"{name} {decoded[name][0]}" for name in shown), 4)


def _speaks(rule: str, name: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", rule) is not None


def _problem(check: str, where: str, text: str, fix: str) -> Finding:
    return Finding(check=check, level="problem", where=where, text=text, fix=fix)


def _note(check: str, where: str, text: str, fix: str) -> Finding:
    return Finding(check=check, level="note", where=where, text=text, fix=fix)
