"""CloudEvents as KServe's logger sends them: one for a request, one for its answer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from ..._errors import EvidenceError

_TYPES = {
    f"org.{place}.serving.inference.{kind}": kind
    for place in ("kubeflow", "kserve")
    for kind in ("request", "response")
}
_NEEDED = ("specversion", "id", "source", "type")
_LONGEST = 256


@dataclass(frozen=True, kw_only=True)
class Event:
    """One logged message: its body and what its sender says about it.

    id: the same for a request and its answer. kind: request or response. attributes: texts by name,
    such as inferenceservicename. media: the body's type.
    """

    id: str
    kind: str
    attributes: dict[str, str]
    media: str
    body: bytes


def event_of_http(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Event:
    """The event in an HTTP request, in binary or structured form; raises EvidenceError."""
    found: dict[str, str] = {}
    media = ""
    for name, value in headers:
        key = name.decode("latin-1").lower()
        if key == "content-type":
            media = value.decode("latin-1")
        elif key.startswith("ce-"):
            found[key[3:]] = unquote(value.decode("latin-1"))
    if media.partition(";")[0].strip().lower() == "application/cloudevents+json":
        return event_of_json(body)
    return _event(found, media, body)


def event_of_json(text: bytes) -> Event:
    """The event in its JSON form; raises EvidenceError."""
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise EvidenceError("an event is not JSON; give one on each line") from None
    if not isinstance(told, dict):
        raise EvidenceError("an event is not an object; give one on each line")
    data, packed = told.pop("data", None), told.pop("data_base64", None)
    try:
        body = b"" if packed is None else base64.b64decode(packed, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise EvidenceError("an event's data_base64 is not base64; see who wrote it") from None
    if packed is None and data is not None:
        body = data.encode() if isinstance(data, str) else orjson.dumps(data)
    media = told.pop("datacontenttype", "application/json")
    return _event(told, str(media), body)


def _event(told: dict[str, Any], media: str, body: bytes) -> Event:
    missing = [name for name in _NEEDED if not isinstance(told.get(name), str) or not told[name]]
    if missing:
        raise EvidenceError(f"an event has no {missing[0]}; it must be a CloudEvent 1.0")
    kind = _TYPES.get(told["type"])
    if told["specversion"] != "1.0" or kind is None:
        raise EvidenceError(
            f"an event is of type {told['type'][:80]!r}, version {told['specversion'][:8]!r}; give "
            "those of KServe's logger, version 1.0"
        )
    attributes = {
        name[:64]: str(value)[:_LONGEST]
        for name, value in list(told.items())[:32]
        if name not in ("id", "type", "specversion")
    }
    return Event(
        id=told["id"][:_LONGEST], kind=kind, attributes=attributes, media=media[:128], body=body
    )
