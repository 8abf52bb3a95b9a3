"""JSON of which there is only one reading, and numbers in it without a detour over objects."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from ._error import RequestError

Array = NDArray[Any]

# As a value: after a bracket, a comma or a colon.
_ODD = re.compile(rb"[\[,:]\s*-?(NaN|Infinity)\s*[\],}]")
_BRACKET = ord("[")
_FEW = 16
_SPARE, _SHORT = 4, 65_536
_List, _Object = simdjson.Array, simdjson.Object
_KINDS = {"d": np.dtype("<f8"), "i": np.dtype("<i8"), "u": np.dtype("<u8")}
_spare: list[simdjson.Parser] = []


class Text:
    """A JSON text that was parsed as a whole, and not yet turned into objects.

    Raises RequestError where parsers would differ about it: keys that come twice are read as the
    first or the last of them, NaN and numbers without end as errors or not.
    """

    def __init__(self, text: bytes, parser: simdjson.Parser | None = None) -> None:
        # A parser of its own: one that is used again must outlive all that was read from it.
        try:
            self.root = (parser or simdjson.Parser()).parse(text)
        except (ValueError, RuntimeError) as error:
            if "BIGINT" in str(error):
                raise RequestError(
                    400, "data", "a whole number beyond 64 bits; write it with an exponent"
                ) from None
            why = ", which has no NaN and no Infinity" if _ODD.search(text) else ""
            raise RequestError(400, "not_json", f"the body is not JSON{why}") from None
        self._text, self._brackets = text, 0
        self._lists: list[tuple[Any, int]] = []

    def elements(self, value: Any) -> list[Any] | None:
        """What a list has; None for what is no list."""
        if not is_list(value):
            return None
        self._brackets += 1
        return list(value)

    def numbers(self, value: Any, kind: str, shape: tuple[int, ...] | None = None) -> Array:
        """Numbers from a list, flat or nested exactly as a shape is, or as it is itself.

        kind: d, i or u, for float64, int64 and uint64. Raises ValueError for what is none.
        """
        count = len(value) if is_list(value) else 0
        if not count:
            raise ValueError("no list")
        lengths: tuple[int, ...] = (count,)
        brackets = 1
        if is_list(value[0]):
            lengths = shape or _shape(value)
            if not _fits(value, lengths):
                raise ValueError("lists of unequal length")
            brackets = sum(prod(lengths[:axis]) for axis in range(len(lengths)))
        try:
            found = np.frombuffer(value.as_buffer(of_type=kind), _KINDS[kind])
        except (TypeError, RuntimeError) as error:
            raise ValueError("no numbers") from error
        wanted = shape or lengths
        if len(found) != prod(wanted):
            raise ValueError("size")
        self._brackets += brackets
        self._lists.append((value, len(lengths)))
        return found.reshape(wanted)

    def close(self) -> None:
        """Raises ValueError where lists are among the numbers of a list, which nobody looked at."""
        # All is well where each bracket of the text is accounted for, unless names hold some too.
        if not self._only(self._brackets):
            for value, axes in self._lists:
                if not _plain(value, axes):
                    raise ValueError("lists among numbers")

    def _only(self, brackets: int) -> bool:
        """Whether the text has so many brackets that open a list or stand in a name."""
        text, place = self._text, -1
        if brackets > _FEW:
            # Some ten times faster than bytes.count.
            return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _BRACKET)) == brackets
        for _ in range(brackets):
            place = text.find(b"[", place + 1)
        return text.find(b"[", place + 1) < 0


def lent() -> simdjson.Parser:
    """A parser that has its memory already, which takes as long as to parse a short text."""
    try:
        return _spare.pop()
    except IndexError:
        return simdjson.Parser()


def give_back(parser: simdjson.Parser, text: bytes) -> None:
    """Keep a parser for others, once nothing that was read from its text is in use."""
    if len(text) <= _SHORT and len(_spare) < _SPARE:
        _spare.append(parser)


def members(value: Any, what: str, known: frozenset[str] | None = None) -> dict[str, Any]:
    """What an object has by its keys; raises RequestError for a key twice, or one not known."""
    if not isinstance(value, _Object):
        raise RequestError(400, "form", f"{what} must be an object")
    try:
        keys = list(value.keys())
        found = {}
        for key in keys:
            found[key] = value[key]
    except (ValueError, RuntimeError, KeyError):
        # Bytes that are no Unicode, and zero bytes, at which some parsers end a key.
        raise RequestError(400, "not_json", f"{what} has a key that is no plain text") from None
    if len(found) != len(keys):
        raise RequestError(400, "duplicate_key", "the body has a key twice")
    if known is not None and not known.issuperset(found):
        raise RequestError(400, "unknown_key", f"{what} has a key that the protocol does not know")
    return found


def is_list(value: Any) -> bool:
    """Whether a value is a list."""
    return isinstance(value, _List)


def _shape(value: Any) -> tuple[int, ...]:
    found = []
    while is_list(value) and len(value):
        found.append(len(value))
        value = value[0]
    return tuple(found)


def _fits(value: Any, lengths: tuple[int, ...]) -> bool:
    """Whether lists within a list are as long as they should be; numbers are not looked at."""
    if not is_list(value) or len(value) != lengths[0]:
        return False
    return len(lengths) == 1 or all(_fits(part, lengths[1:]) for part in value)


def _plain(value: Any, axes: int) -> bool:
    if axes > 1:
        return all(_plain(part, axes - 1) for part in value)
    return not any(is_list(part) for part in value)
