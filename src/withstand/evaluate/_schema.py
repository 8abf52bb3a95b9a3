"""The published JSON schema of a report, from the types of its fields."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..stats import Interval
from ._report import HIDDEN, SCHEMA, Cost, Finding, Report, Verdict

_FIGURE = {
    "type": "object",
    "required": ["value", "low", "high", "n"],
    "additionalProperties": False,
    "properties": {
        **{name: {"type": ["number", "null"]} for name in ("value", "low", "high")},
        "n": {"type": "integer", "minimum": 0},
    },
    "description": "an estimate from n samples with its 95 % interval",
}


def report_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of report.json."""
    schema = _of(Report)
    trust = {
        "type": "object",
        "required": ["verdict", "findings", "cost"],
        "additionalProperties": False,
        "properties": {
            "verdict": {"enum": list(get_args(Verdict))},
            "findings": {"type": "array", "items": _of(Finding)},
            "cost": _of(Cost),
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "withstand report",
        **schema,
        "required": ["schema", *schema["required"], "trust"],
        "properties": {"schema": {"const": SCHEMA}, **schema["properties"], "trust": trust},
        "$defs": {"figure": _FIGURE},
    }


def _of(kind: Any) -> dict[str, Any]:
    if kind is Interval:
        return {"$ref": "#/$defs/figure"}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.name not in HIDDEN]
        return {
            "type": "object",
            "required": names,
            "additionalProperties": False,
            "properties": {name: _of(hints[name]) for name in names},
        }
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(part) for part in parts]}
    if origin is tuple:
        return {"type": "array", "items": _of(parts[0])}
    if origin is np.ndarray:
        return {"type": "array"}
    if origin is dict:
        return {"type": "object"}
    return dict(_PLAIN[kind])


# JSON has no infinity: a distance that was never found is null.
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
