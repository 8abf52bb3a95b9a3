"""Records as CloudEvents 1.0, for whatever else watches a cluster."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ._record import Record

_GUARD, _LOG = "io.withstand.guard", "io.withstand.evidence"


def cloud_event(record: Record, source: str) -> dict[str, Any]:
    """A record as an event in structured form; source: a URI that tells whose log it is.

    Decisions are of type io.withstand.guard.decision, or .quarantine where the input was put aside;
    what the log says of itself is of type io.withstand.evidence.KIND. The id is the record's hash.
    """
    content = record.content
    kind = f"{_LOG}.{record.kind}"
    if record.kind == "decision":
        aside = "quarantine" in content.get("done", ())
        kind = f"{_GUARD}.{'quarantine' if aside else 'decision'}"
    told = {
        "specversion": "1.0",
        "id": record.hash,
        "source": source,
        "type": kind,
        "time": datetime.fromtimestamp(record.wall, UTC).isoformat(timespec="microseconds"),
        "datacontenttype": "application/json",
        "data": asdict(record),
    }
    if isinstance(content.get("model"), str) and content["model"]:
        told["subject"] = content["model"]
    return told


def event_schema() -> dict[str, Any]:
    """JSON Schema of the events, draft 2020-12; fields may be added."""
    text, number = {"type": "string"}, {"type": "number"}
    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    decision = {
        "id": text,
        "tenant": text,
        "key": text,
        "model": text,
        "version": text,
        "weights": text,
        "policy": text,
        "mode": {"enum": ["observe", "shadow", "enforce"]},
        "decision": {"enum": ["pass", "flag", "refuse"]},
        "status": {"type": "integer"},
        "reason": text,
        "request_id": text,
        "done": {"type": ["array", "string"]},
        "would": {"type": ["array", "string"]},
        "habit": {"type": ["object", "string"]},
        "ms": {"type": ["array", "string"]},
        "input": digest,
        "input_lost": {"enum": ["no room", "vault"]},
        "fingerprint": digest,
    }
    record = {
        "seq": {"type": "integer", "minimum": 1},
        "wall": number,
        "mono": number,
        "boot": text,
        "kind": {"type": "string", "pattern": "^[a-z_]{1,32}$"},
        "content": {"type": "object"},
        "prev": digest,
        "hash": digest,
    }
    decided = {"properties": {"type": {"pattern": r"^io\.withstand\.guard\."}}}
    content = {"properties": decision, "required": ["id", "decision"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:withstand:event:1",
        "title": "CloudEvent of a withstand guard",
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": digest,
            "source": {"type": "string", "format": "uri-reference", "minLength": 1},
            "type": {"type": "string", "pattern": r"^io\.withstand\.(guard|evidence)\.[a-z_]+$"},
            "time": {"type": "string", "format": "date-time"},
            "subject": {"type": "string", "minLength": 1},
            "datacontenttype": {"const": "application/json"},
            "data": {"type": "object", "properties": record, "required": list(record)},
        },
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "data"],
        "if": decided,
        "then": {"properties": {"data": {"properties": {"content": content}}}},
    }
