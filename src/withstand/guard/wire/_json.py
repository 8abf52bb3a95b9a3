"""JSON of which there is only one reading."""

from __future__ import annotations

import json
from typing import Any

import orjson

from ._error import RequestError

_DEPTH = 32


def strict(body: bytes) -> Any:
    """The value of a JSON text; raises RequestError where parsers would differ about it.

    Keys that come twice are read as the first or the last of them, NaN and numbers without end as
    errors or not: none of it is let through. orjson refuses the latter by itself.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RequestError(400, "not_json", "the body is not JSON") from None
    # Without escapes each key and each text stand in the body as they are, so that every colon is
    # accounted for, unless a key came twice. Counting takes a hundredth of parsing anew.
    if b"\\" in body or body.count(b":") != _colons(value, _DEPTH):
        json.loads(body, object_pairs_hook=_unique)
    return value


def _colons(value: Any, depth: int) -> int:
    """How many colons a value takes to write down, without escapes."""
    if isinstance(value, str):
        return int(value.count(":"))
    if not isinstance(value, dict | list) or _numeric(value):
        return 0
    if not depth:
        raise RequestError(400, "too_deep", f"the body is nested deeper than {_DEPTH} levels")
    if isinstance(value, list):
        return sum([_colons(part, depth - 1) for part in value])
    keys = sum([1 + key.count(":") for key in value])
    return int(keys + sum([_colons(part, depth - 1) for part in value.values()]))


def _numeric(value: Any) -> bool:
    """Whether a nested list begins with a number; those that go on otherwise are refused later."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, int | float)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError(400, "duplicate_key", "the body has a key twice")
    return found
