"""The published JSON schema of a file of certificates, from the types of its fields."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from ._certificate import SCHEMA, Certificate, Certificates, Method, Outcome

_VOTES = {
    "type": "object",
    "additionalProperties": {"type": "integer", "minimum": 1},
    "description": "votes by class; a class without any is left out",
}
_KINDS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Method: {"enum": list(get_args(Method))},
    Outcome: {"enum": list(get_args(Outcome))},
    dict[str, Any]: {"type": "object"},
    tuple[float, ...]: {"type": "array", "items": {"type": "number"}},
    tuple[str, ...]: {"type": "array", "items": {"type": "string"}},
}


def certificates_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of certificates.json."""
    figure = {"type": ["number", "null"]}
    share = {
        "type": "object",
        "required": ["value", "low", "high", "n"],
        "additionalProperties": False,
        "properties": {
            **dict.fromkeys(("value", "low", "high"), figure),
            "n": {"type": "integer", "minimum": 0},
        },
        "description": "the share proven robust, a lower bound, with its 95 % interval",
    }
    whole = _of(Certificates)
    whole["properties"]["certificates"] = {"type": "array", "items": _of(Certificate)}
    head = {"digest": {"type": "string"}, "schema": {"const": SCHEMA}, "certified_accuracy": share}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "withstand certificates",
        **whole,
        "required": [*head, *whole["required"]],
        "properties": {**head, **whole["properties"]},
    }


def _of(kind: type[Certificate] | type[Certificates]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {
        "type": "object",
        "required": [f.name for f in fields(kind) if f.default is MISSING],
        "additionalProperties": False,
        "properties": {f.name: _plain(hints[f.name]) for f in fields(kind)},
    }


def _plain(kind: Any) -> dict[str, Any]:
    if kind == dict[str, int] | None:
        return dict(_VOTES)
    (known, *_) = [part for part in (kind, *get_args(kind)) if _known(part)] or [str]
    return dict(_KINDS[known])


def _known(kind: Any) -> bool:
    try:
        return kind in _KINDS
    except TypeError:
        return False
