"""A record of the log and the bytes that stand for it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from types import UnionType
from typing import Any, NamedTuple

from ..._errors import EvidenceError

try:
    import orjson
except ModuleNotFoundError:  # An extra, and a log can be read and written without it.
    orjson = None  # type: ignore[assignment]

START = "0" * 64
"""What the first record of a log follows."""

MOST_BYTES = 65_536
"""Of one record's content."""

KIND = re.compile(r"[a-z_]{1,32}")
_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"}\n\Z')
_FIELDS: dict[str, type | UnionType] = {
    "seq": int,
    "wall": int | float,
    "mono": int | float,
    "boot": str,
    "kind": str,
    "prev": str,
    "content": dict,
    "hash": str,
}
_PLAIN = 0 if orjson is None else orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class Head(NamedTuple):
    """Where a chain stands: the last record's number and hash."""

    seq: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One entry of the log.

    seq: its number, from 1 without gaps. wall, mono: seconds since 1970 and of a clock that is
    never set, which tells that wall was. boot: the process that wrote it. kind: decision, or what
    the log says of itself: boot, gap, close, erased. prev, hash: sha256 (hex) of the record before
    and of this one.
    """

    seq: int
    wall: float
    mono: float
    boot: str
    kind: str
    content: dict[str, Any]
    prev: str
    hash: str


def content_text(content: dict[str, Any]) -> bytes:
    """Plain values as the JSON text that is kept; raises EvidenceError for others or too many."""
    text = b""
    if orjson is not None:
        try:
            text = orjson.dumps(content, option=_PLAIN)
        except TypeError:
            text = b""
    # orjson writes NaN as null, and refuses what JSON can carry: whole numbers beyond 64 bits.
    if not text or b"null" in text:
        try:
            text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise EvidenceError(f"a record cannot be JSON ({error}); give plain values") from None
    if len(text) > MOST_BYTES:
        raise EvidenceError(
            f"a record has {len(text)} bytes, more than {MOST_BYTES}; keep inputs in the vault and "
            "name them in the record"
        )
    return text


def encode(
    head: Head, *, wall: float, mono: float, boot: str, kind: str, content: bytes
) -> tuple[bytes, Head]:
    """The line of the record that follows a head, and the new head; content: as `content_text`.

    The hash is of the line's bytes before it, the hash of the record before included, so that it is
    checked without knowing what the fields mean.
    """
    seq = head.seq + 1
    start = (
        f'{{"seq":{seq},"wall":{_text(wall)},"mono":{_text(mono)},"boot":"{boot}","kind":"{kind}",'
        f'"prev":"{head.hash}","content":'
    )
    body = start.encode() + content
    found = hashlib.sha256(body).hexdigest()
    return body + f',"hash":"{found}"}}\n'.encode(), Head(seq, found)


def _text(number: float) -> str:
    # The same digits in a fifth of the time.
    return repr(number) if orjson is None else orjson.dumps(number).decode()


def decode(line: bytes) -> Record:
    """The record in a line; raises ValueError for one that is not whole or was changed."""
    tail = _TAIL.search(line)
    if tail is None:
        raise ValueError("not a whole record")
    found = hashlib.sha256(line[: tail.start()]).hexdigest()
    if found != tail[1].decode():
        raise ValueError("its hash is not that of its content")
    told = json.loads(line)
    if (
        not isinstance(told, dict)
        or set(told) != set(_FIELDS)
        or not all(isinstance(told[name], kind) for name, kind in _FIELDS.items())
    ):
        raise ValueError("its fields are not those of a record")
    return Record(**told)
