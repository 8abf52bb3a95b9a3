"""The published JSON schema of a report, from the types of its fields."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection
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
    return schema_of(Report, SCHEMA, "withstand report", HIDDEN)


def schema_of(report: type, name: str, title: str, hidden: Collection[str]) -> dict[str, Any]:
    """The JSON schema of a report with a trust verdict, without the fields that are hidden."""
    schema = _of(report, hidden)
    trust = {
        "type": "object",
        "required": ["verdict", "findings", "cost"],
        "additionalProperties": False,
        "properties": {
            "verdict": {"enum": list(get_args(Verdict))},
            "findings": {"type": "array", "items": _of(Finding, ())},
            "cost": _of(Cost, ()),
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
        "title": title,
        **schema,
        "required": ["schema", *schema["required"], "trust"],
        "properties": {"schema": {"const": name}, **schema["properties"], "trust": trust},
        "$defs": {"figure": _FIGURE},
    }


def _of(kind: Any, hidden: Collection[str]) -> dict[str, Any]:
    if kind is Interval:
        return {"$ref": "#/$defs/figure"}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.name not in hidden]
        return {
            "type": "object",
            "required": names,
            "additionalProperties": False,
            "properties": {name: _of(hints[name], hidden) for name in names},
        }
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(part, hidden) for part in parts]}
    if origin is tuple:
        return {"type": "array", "items": _of(parts[0], hidden)}
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
