"""Random tables with rules of all kinds, and a plain check of rows that knows nothing of ours."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, str]
Rule = Callable[[Row], tuple[float, float]]
# How far sides of a comparison may be apart that single precision cannot tell apart.
SINGLE = 1e-6
TEXTS = [
    "DE", "FR", "007", "7", "a,b", 'say "hi"', "NA", "null", "true", "no", "größer", "a -> b",
    "x ~ 3", "it's", "`", "1e3", "2026-01-31", " padded ", "Ünï\u4e2d", "a where b = 2", "-", "a*",
    "two\nlines",
]  # fmt: skip
NAMES = ["amount", "age", "Größe", "odd name", "x.y", "class", "min", "p-1", "n", "a,b", "sum"]
KINDS = ["linear", "product", "ratio", "abs", "sum", "implies", "or", "category", "dates", "near"]


@dataclass
class Plain:
    """A table as this file knows it: what table.yaml says, its rows, and its rules in Python.

    rules: each gives how far a row is from fulfilling it, and how large its terms are.
    """

    told: dict[str, Any]
    rows: list[Row]
    rules: list[tuple[str, Rule]] = field(default_factory=list)
    made: dict[str, Callable[[Row], float]] = field(default_factory=dict)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Its table.yaml and its rows as csv."""
        table, data = folder / "table.yaml", folder / "rows.csv"
        table.write_text(yaml.safe_dump(self.told, sort_keys=False, allow_unicode=True), "utf-8")
        write_csv(data, self.rows)
        return table, data

    def wrong(self, before: Row, after: Row) -> list[str]:
        """The rules that a row, made of another, breaks."""
        found: list[str] = []
        spent, moved = 0.0, 0
        chosen = {name for group in self.told["choices"] for name in group["columns"]}
        for name, one in self.told["features"].items():
            if name in self.made:
                wanted, there = self.made[name](after), float(after[name])
                if abs(wanted - there) > 2e-5 * max(abs(wanted), 1):
                    found.append(f"{name} is {there}, which is not {wanted}")
                continue
            found += [f"{name} {why}" for why in _broken(one, before[name], after[name])]
            if before[name] != after[name]:
                spent += one.get("fixed", 0)
                spent += one.get("cost", 0) * abs(_moved(one, before[name], after[name]))
                moved += name not in chosen
        for group in self.told["choices"]:
            flags = [after[name] for name in group["columns"]]
            if sorted(flags) != ["0"] * (len(flags) - 1) + ["1"]:
                found.append(f"{group['columns']} are {flags}")
            if flags != [before[name] for name in group["columns"]]:
                spent += group.get("cost", 0)
                moved += 1
        for text, rule in self.rules:
            lack, size = rule(after)
            if lack > SINGLE * max(size, 1):
                found.append(f"{text} lacks {lack}")
        if moved > self.told.get("most_changed", math.inf):
            found.append(f"{moved} features change")
        if spent > self.told.get("most_cost", math.inf) * (1 + SINGLE) + SINGLE:
            found.append(f"costs {spent}")
        return found


def write_csv(path: Path, rows: list[Row]) -> None:
    """Rows as csv, by Python's own writer."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def read_csv(path: Path) -> list[Row]:
    """Rows of csv, by Python's own reader."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _moved(one: dict[str, Any], before: str, after: str) -> float:
    if "values" in one:
        return 0.0
    if "date" in one:
        return float((date.fromisoformat(after) - date.fromisoformat(before)).days)
    return float(after) - float(before)


def _broken(one: dict[str, Any], before: str, after: str) -> list[str]:
    """What a value breaks, exactly: its text is what a person would see."""
    found, change = [], one.get("change", "both")
    if change == "none":
        return [] if before == after else ["was not to change"]
    if "values" in one:
        if after not in one["values"]:
            found.append(f"is {after!r}, which is no category")
        if after not in (before, *one.get("allow", {}).get(before, one["values"])):
            found.append(f"must not go from {before!r} to {after!r}")
        return found
    up, room = _moved(one, before, after), 0.0
    if "date" in one:
        low, high = date.fromisoformat(one["lower"]), date.fromisoformat(one["upper"])
        inside = low <= date.fromisoformat(after) <= high
    else:
        room = SINGLE * max(abs(float(after)), 1)
        inside = one["lower"] <= float(after) <= one["upper"]
        if one.get("integer") and Decimal(after) % 1:
            found.append(f"is {after}, which is not whole")
        if "step" in one and Decimal(after) % Decimal(str(one["step"])):
            found.append(f"is {after}, no multiple of {one['step']}")
    if not inside:
        found.append(f"is {after}, out of its range")
    if (change == "increase" and up < 0) or (change == "decrease" and up > 0):
        found.append(f"moves by {up}")
    most = min(one.get("most", math.inf), one.get("share", math.inf) * _size_of(one, before))
    if abs(up) > most + room:
        found.append(f"moves by {up}, more than {most}")
    return found


def _size_of(one: dict[str, Any], before: str) -> float:
    if "share" not in one:
        return 1.0
    return abs(float(before))


def random_table(seed: int, rows: int = 8) -> Plain:
    """A table of 2 to 12 columns, with rows that keep all of its rules."""
    draw = random.Random(seed)
    features: dict[str, Any] = {}
    data: list[Row] = [{} for _ in range(rows)]
    for name in draw.sample(NAMES, draw.randint(2, 6)):
        features[name], values = _column(draw, rows)
        for row, value in zip(data, values, strict=True):
            row[name] = value
    choices = []
    if draw.random() < 0.4:
        group = [f"dev_{n}" for n in range(draw.randint(2, 4))]
        choices.append({"columns": group, "cost": draw.choice([0, 1, 2.5])})
        features |= {name: {"integer": True, "lower": 0, "upper": 1} for name in group}
        for row in data:
            one = draw.choice(group)
            row |= {name: str(int(name == one)) for name in group}
    told = {"features": features, "choices": choices, "derived": {}, "relations": []}
    plain = Plain(told, data)
    for _ in range(draw.randint(0, 3)):
        _relate(draw, plain)
    for number in range(draw.choice([0, 0, 1, 2])):
        _derive(draw, plain, f"made_{number}")
    if draw.random() < 0.5:
        told["most_changed"] = draw.randint(1, 4)
    if draw.random() < 0.4:
        told["most_cost"] = draw.choice([0, 1, 5.5, 100])
    order = list(features)
    draw.shuffle(order)
    told["features"] = {name: features[name] for name in order}
    data[:] = [{name: row[name] for name in order} for row in data]
    return plain


def _column(draw: random.Random, rows: int) -> tuple[dict[str, Any], list[str]]:
    """What a column is told to be, and values."""
    change = draw.choice(["both", "both", "both", "increase", "decrease", "none"])
    told: dict[str, Any] = {} if change == "both" else {"change": change}
    kind = draw.choice(["number", "step", "integer", "category", "date", "constant"])
    if draw.random() < 0.3:
        told["fixed"] = draw.choice([0, 1.5])
    if kind == "category":
        labels = draw.sample(TEXTS, draw.randint(1, 5))
        told = {**told, "change": "none" if change == "none" else "both", "values": labels}
        if change != "none" and draw.random() < 0.5:
            some = draw.sample(labels, draw.randint(1, len(labels)))
            told["allow"] = {one: draw.sample(labels, draw.randint(0, len(labels))) for one in some}
        return told, [draw.choice(labels) for _ in range(rows)]
    if draw.random() < 0.5:
        told["cost"] = draw.choice([0, 0.1, 2])
    if kind == "date":
        first, span = date(1950, 1, 1) + timedelta(draw.randint(0, 30000)), draw.randint(0, 900)
        told |= {"date": True, "lower": str(first), "upper": str(first + timedelta(span))}
        if draw.random() < 0.4:
            told["most"] = draw.randint(1, 60)
        return told, [str(first + timedelta(draw.randint(0, span))) for _ in range(rows)]
    steps = {"number": 0.001, "step": draw.choice([0.01, 0.05, 0.5, 5, 25])}
    step = Decimal(str(steps.get(kind, 1)))
    low = draw.randint(-40, 40) * draw.choice([0, 0, 1])
    count = 0 if kind == "constant" else draw.randint(1, 400)
    told |= {"lower": float(low * step), "upper": float((low + count) * step)}
    if kind == "step":
        told["step"] = float(step)
    if kind == "integer" or (kind == "constant" and draw.random() < 0.5):
        told["integer"] = True
    if draw.random() < 0.3:
        told["most"] = draw.choice([0.5, 1, 30])
    if draw.random() < 0.2:
        told["share"] = draw.choice([0.1, 0.8, 1.5])
    return told, [_written((low + draw.randint(0, count)) * step) for _ in range(rows)]


def _written(value: Decimal) -> str:
    return str(int(value)) if value == int(value) else str(value.normalize())


def _named(plain: Plain, kind: str | None = None) -> list[str]:
    """The columns of categories, of dates, or else of numbers."""
    return [
        name
        for name, one in plain.told["features"].items()
        if one is not None
        and (kind in one if kind is not None else "values" not in one and "date" not in one)
    ]


def _quoted(name: str) -> str:
    return f"`{name}`" if name in ("class", "min", "sum") or not name.isalpha() else name


def _relate(draw: random.Random, plain: Plain) -> None:
    """A rule with a limit that all rows keep."""
    numbers = _named(plain)
    if not numbers:
        return
    a, b = draw.choice(numbers), draw.choice(numbers)
    p, q, k = _quoted(a), _quoted(b), draw.choice([1, 2, -0.5])
    kind = draw.choice(KINDS)
    flags = 1 if plain.told["choices"] else 0
    forms: dict[str, tuple[str, Callable[[float, float], float]]] = {
        "linear": (f"{p} + {k} * {q}", lambda one, other: one + k * other),
        "product": (f"{p} * {q}", lambda one, other: one * other),
        "ratio": (f"{p} / max({q}, 1)", lambda one, other: one / max(other, 1)),
        "abs": (f"abs({p} - {q})", lambda one, other: abs(one - other)),
        "sum": (f"sum(dev_*) + {p}" if flags else p, lambda one, other: one + flags),
    }
    if kind in forms:
        text, value = forms[kind]
        limit = _most(draw, [value(float(row[a]), float(row[b])) for row in plain.rows])
        power = 2 if kind == "product" else 1
        _add(plain, f"{text} <= {limit}", lambda row: (
            value(float(row[a]), float(row[b])) - limit, _size(row, a, b) ** power))  # fmt: skip
    elif kind in ("implies", "or"):
        edge = float(draw.choice(plain.rows)[a]) + 0.0005
        limit = _most(draw, [float(row[b]) for row in plain.rows if float(row[a]) > edge])
        text = {"implies": f"{p} > {edge} -> {q} <= {limit}",
                "or": f"not {p} > {edge} or {q} <= {limit}"}[kind]  # fmt: skip
        _add(plain, text, lambda row: (
            min(float(row[a]) - edge, float(row[b]) - limit), _size(row, a, b)))  # fmt: skip
    elif kind == "category" and (sets := _named(plain, "values")):
        name = draw.choice(sets)
        label = draw.choice(plain.told["features"][name]["values"])
        limit = _most(draw, [float(row[a]) for row in plain.rows if row[name] == label])
        _add(plain, f"{_quoted(name)} == {label!r} -> {p} <= {limit}", lambda row: (
            float(row[a]) - limit if row[name] == label else 0.0, _size(row, a)))  # fmt: skip
    elif kind == "dates" and (days := _named(plain, "date")):
        name = draw.choice(days)
        last = max(row[name] for row in plain.rows)
        text = f"date({_quoted(name)}) <= date('{last}')".replace("date(`", "(`")
        _add(plain, text, lambda row: (float(row[name] > last), 1.0))
    elif kind == "near":
        apart = _most(draw, [abs(float(row[a]) - float(row[b])) for row in plain.rows])
        _add(plain, f"{p} == {q} ~ {apart}", lambda row: (
            abs(float(row[a]) - float(row[b])) - apart, _size(row, a, b)))  # fmt: skip


def _most(draw: random.Random, values: list[float]) -> float:
    return round(max(values, default=0.0), 3) + draw.choice([0.01, 1, 20])


def _size(row: Row, *names: str) -> float:
    return 1 + sum(abs(float(row[name])) for name in names)


def _add(plain: Plain, text: str, rule: Rule) -> None:
    plain.told["relations"].append(text)
    plain.rules.append((text, rule))


def _derive(draw: random.Random, plain: Plain, name: str) -> None:
    """A column that follows from others, with its values."""
    numbers = [one for one in _named(plain) if one not in plain.made]
    if not numbers:
        return
    a, b = draw.choice(numbers), draw.choice(numbers)
    p, q = _quoted(a), _quoted(b)
    forms: list[tuple[str, Callable[[float, float], float]]] = [
        (f"{p} + {q}", lambda one, other: one + other),
        (f"{p} * {q}", lambda one, other: one * other),
        (f"{p} / max({q}, 1)", lambda one, other: one / max(other, 1)),
        (f"min({p}, {q})", min),
        (f"abs({p})", lambda one, other: abs(one)),
        (f"exp(-abs({p}))", lambda one, other: math.exp(-abs(one))),
    ]
    text, value = draw.choice(forms)
    plain.told["features"][name] = None
    plain.told["derived"][name] = text
    plain.made[name] = lambda row: value(float(row[a]), float(row[b]))
    for row in plain.rows:
        row[name] = repr(plain.made[name](row))
