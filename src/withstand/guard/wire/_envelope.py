"""What is the same from request to request, and need not be read each time."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ._inference import Inference, Limits

_ROOM = 256
_LONGEST = 2048
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[\Z')


class Parts(NamedTuple):
    """A text cut around its last list: what is before, with the bracket, the list, and the rest.

    Of a request with raw numbers behind its text, the text, the numbers, and nothing.
    """

    before: bytes
    numbers: bytes | memoryview
    after: bytes


class Envelope(NamedTuple):
    """A request of one input without its numbers, and the limits within which it was read."""

    limits: Limits
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any]
    outputs: tuple[tuple[str, dict[str, Any]], ...]
    of_request: dict[str, Any]
    binary: bool


class Envelopes:
    """Requests that were read strictly, by their text without the numbers.

    A text that is equal to one of them but for its last list, the `data` of its only input, means
    the same to every parser, if that list is one by itself; and so does an equal text before raw
    numbers. Those with an id are not kept: mostly no other has it. At most 256 of 2 KiB are kept.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Envelope] = {}

    def find(self, parts: Parts, limits: Limits) -> Envelope | None:
        """That of a request that was equal but for the numbers, read within the same limits."""
        known = self._known.get((parts.before, parts.after))
        return known if known is not None and known.limits is limits else None

    def keep(self, parts: Parts, limits: Limits, asked: Inference) -> None:
        """Keep that of a request that was read, where its numbers are in its last list, or raw."""
        one = asked.inputs[0]
        if asked.id or len(asked.inputs) > 1:
            return
        # No other list of a request that was read can follow this key.
        if parts.after and not _DATA.search(parts.before):
            return
        if one.datatype in ("BYTES", "BOOL"):
            return
        if len(self._known) >= _ROOM:
            self._known.clear()
        self._known[parts.before, parts.after] = Envelope(
            limits, one.name, one.datatype, one.values.shape, one.parameters, asked.outputs,
            asked.parameters, asked.binary,
        )  # fmt: skip


def before_raw(text: bytes, numbers: memoryview) -> Parts | None:
    """The parts of a text with raw numbers behind it; None where there are none, or much text."""
    return Parts(text, numbers, b"") if numbers and len(text) <= _LONGEST else None


def cut(text: bytes) -> Parts | None:
    """The parts of a text; None where there is no list, or there is much beside it."""
    start = text.rfind(b"[")
    end = text.find(b"]", start) + 1
    if start < 0 or not end or start + len(text) - end > _LONGEST:
        return None
    return Parts(text[: start + 1], text[start:end], text[end:])
