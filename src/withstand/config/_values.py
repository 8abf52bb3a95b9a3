"""The value types of the file: numbers that may be fractions, counts, shares, bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_DECIMAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_FRACTION = re.compile(rf"\s*({_DECIMAL})\s*(?:/\s*({_DECIMAL})\s*)?")
_TEXT = {"type": "string", "pattern": rf"^\s*{_DECIMAL}\s*(/\s*{_DECIMAL}\s*)?$"}


def number(value: object) -> float:
    """A finite number, also from text such as "8/255" or "1e-3", which YAML reads as text."""
    try:
        if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
            result = float(match[1]) / float(match[2] or 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            result = float(value)
        else:
            raise ValueError
        if not math.isfinite(result):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("give a finite number, such as 0.3 or 8/255") from None
    return result


def _bounded(least: float, fix: str, *, above: bool = False) -> Callable[[object], float]:
    def check(value: object) -> float:
        result = number(value)
        if result < least or (above and result == least):
            raise ValueError(fix)
        return result

    return check


def _whole(least: int, fix: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        try:
            result = number(value)
        except ValueError:
            raise ValueError("give a whole number") from None
        if result != int(result):
            raise ValueError("give a whole number")
        if result < least:
            raise ValueError(fix)
        # An int goes through untouched, since a float holds only 53 bits of it.
        return value if isinstance(value, int) else int(result)

    return check


def _share(value: object) -> float:
    result = number(value)
    if not 0 <= result <= 1:
        raise ValueError("give a share between 0 and 1, such as 0.85")
    return result


def _probability(value: object) -> float:
    result = number(value)
    if not 0 < result < 1:
        raise ValueError("give more than 0 and less than 1, such as 0.37")
    return result


def _edge(value: object) -> float:
    # An unbounded feature is a fact about a model, so infinity is allowed here only.
    return value if isinstance(value, float) and math.isinf(value) else number(value)


def _bound(value: object) -> float | list[float]:
    if not isinstance(value, list | tuple):
        return _edge(value)
    if not value:
        raise ValueError
    return [_edge(v) for v in value]


def _domain(value: object) -> list[float | list[float]]:
    form = "give [lower, upper], each a number or a list with one number for each feature"
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(form)
    try:
        lower, upper = (_bound(v) for v in value)
    except ValueError:
        raise ValueError(form) from None
    lowers = lower if isinstance(lower, list) else [lower]
    uppers = upper if isinstance(upper, list) else [upper]
    n = max(len(lowers), len(uppers))
    if {len(lowers), len(uppers)} - {1, n}:
        raise ValueError(
            f"it has {len(lowers)} lower and {len(uppers)} upper bounds; give the same number"
        )
    pairs = zip(lowers * (n // len(lowers)), uppers * (n // len(uppers)), strict=True)
    for i, (low, high) in enumerate(pairs):
        # A feature that never varies has equal bounds; a whole domain that does is a mistake.
        if low > high or (low == high and n == 1):
            of = f" of feature {i}" if n > 1 else ""
            raise ValueError(f"the lower bound {low:g}{of} must be below the upper bound {high:g}")
    return [lower, upper]


def _size(value: object) -> list[int]:
    sides = value if isinstance(value, list | tuple) else [value, value]
    count = _whole(1, "")
    try:
        height, width = (count(side) for side in sides)
    except ValueError:
        raise ValueError("give pixels, as one number or [height, width]") from None
    return [height, width]


def _matrix(value: object) -> list[list[float]]:
    form = "give a square matrix of costs of at least 0: one list for each true class"
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(form)
    if not all(isinstance(row, list | tuple) and len(row) == len(value) for row in value):
        raise ValueError(form)
    try:
        return [[_bounded(0, form)(cost) for cost in row] for row in value]
    except ValueError:
        raise ValueError(form) from None


def _columns(value: object) -> list[int]:
    count = _whole(0, "")
    try:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError
        columns = [count(v) for v in value]
    except ValueError:
        raise ValueError("give a list of feature indices that start at 0, such as [0, 3]") from None
    if len(set(columns)) < len(columns):
        raise ValueError("name each feature index once")
    return columns


def _names(value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("give a list of names, such as [a, b]")
    for v in value:
        if isinstance(v, bool):
            raise ValueError(
                "YAML reads bare yes, no, on, off as true or false; put them in quotes"
            )
        if not isinstance(v, str | int):
            raise ValueError("give a list of names, such as [a, b]")
    names = [str(v) for v in value]
    if len(set(names)) < len(names):
        raise ValueError("name each one once")
    return names


def _schema(**limits: Any) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "number", **limits}, _TEXT]})


_NO_LIMIT = "give at least 1, or leave the key out"
_INTEGER = {"type": "integer"}
_BOUND = {"anyOf": [{"type": "number"}, _TEXT]}

Positive = Annotated[
    float,
    BeforeValidator(_bounded(0, "give more than 0", above=True)),
    _schema(exclusiveMinimum=0),
]
Seconds = Annotated[
    float,
    BeforeValidator(_bounded(0, "give more than 0, or leave the key out for no limit", above=True)),
    _schema(exclusiveMinimum=0),
]
Probability = Annotated[
    float, BeforeValidator(_probability), _schema(exclusiveMinimum=0, exclusiveMaximum=1)
]
Share = Annotated[float, BeforeValidator(_share), _schema(minimum=0, maximum=1)]
Tolerance = Annotated[float, BeforeValidator(_bounded(0, "give 0 or more")), _schema(minimum=0)]
Count = Annotated[
    int, BeforeValidator(_whole(1, _NO_LIMIT)), WithJsonSchema({**_INTEGER, "minimum": 1})
]
Index = Annotated[
    int, BeforeValidator(_whole(0, "give 0 or more")), WithJsonSchema({**_INTEGER, "minimum": 0})
]
Domain = Annotated[
    list[float | list[float]],
    BeforeValidator(_domain),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {"anyOf": [*_BOUND["anyOf"], {"type": "array", "items": _BOUND}]},
        }
    ),
]
Size = Annotated[
    list[int],
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {**_INTEGER, "minimum": 1},
                {
                    "type": "array",
                    "items": {**_INTEGER, "minimum": 1},
                    "minItems": 2,
                    "maxItems": 2,
                },
            ]
        }
    ),
]
Matrix = Annotated[
    list[list[float]],
    BeforeValidator(_matrix),
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "type": "array",
                "items": {"anyOf": [{"type": "number", "minimum": 0}, _TEXT]},
            },
        }
    ),
]
Columns = Annotated[
    list[int],
    BeforeValidator(_columns),
    WithJsonSchema(
        {"type": "array", "items": {**_INTEGER, "minimum": 0}, "minItems": 1, "uniqueItems": True}
    ),
]
Names = Annotated[
    list[str],
    BeforeValidator(_names),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": ["string", "integer"]},
            "minItems": 1,
            "uniqueItems": True,
        }
    ),
]
