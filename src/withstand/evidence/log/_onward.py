"""Reading on in a log from where one was, whatever has become of it since."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..._errors import EvidenceError
from ._record import Head, decode
from ._segment import (
    Break,
    Place,
    beginning,
    last_record,
    name_of,
    number_of,
    segments,
    walk,
)

_LONGEST = 70_000


@dataclass(frozen=True, kw_only=True)
class Position:
    """Behind a record: its segment's number, the byte there, the record's number, hash and time."""

    segment: int
    begin: int
    seq: int
    hash: str
    wall: float


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Records that can no longer be read: purged before they were, or not those read before."""

    records: int
    why: str


def walk_on(folder: Path, after: Position | None) -> Iterator[Place | Break | Lost]:
    """The records of a log behind a position, each once; from its beginning where that is None.

    Half a line at the end is not there yet. A Break is the last of them. Raises EvidenceError.
    """
    known = segments(folder)
    if not known:
        return
    try:
        if after is None:
            head, number, begin = beginning(known), number_of(known[0]), 0
        elif after.segment < number_of(known[0]):
            head, number, begin = beginning(known), number_of(known[0]), 0
            if head.seq > after.seq:
                yield Lost(records=head.seq - after.seq, why="purged before they were read")
        else:
            head, number, begin = Head(after.seq, after.hash), after.segment, after.begin
            if not _fits(folder, after):
                number, head, begin = _again(known, after)
                yield Lost(records=0, why="the last record that was read is no longer there")
        for segment in known:
            if number_of(segment) < number:
                continue
            for place in walk(segment, head, begin if number_of(segment) == number else 0):
                if isinstance(place, Break):
                    if not _unfinished(place, known[-1]):
                        yield place
                    return
                head = Head(place.record.seq, place.record.hash)
                yield place
    except FileNotFoundError:
        # Purged in this moment: the next look finds out what is left.
        return
    except OSError as error:
        raise EvidenceError(
            f"evidence {folder} cannot be read: {error.strerror}; let this user read it"
        ) from None


def _fits(folder: Path, after: Position) -> bool:
    """Whether the record before a position is still the one that was read."""
    try:
        with (folder / name_of(after.segment)).open("rb") as file:
            file.seek(max(0, after.begin - 100))
            tail = file.read(min(100, after.begin))
    except FileNotFoundError:
        return False
    return tail.endswith(f'"hash":"{after.hash}"}}\n'.encode())


def _again(known: list[Path], after: Position) -> tuple[int, Head, int]:
    """Where to go on in a log that was cut back or begun anew: behind what is as old as that."""
    old = [one for one in known if _began(one) <= after.wall] or known[:1]
    segment = old[-1]
    last = last_record(known[: known.index(segment)])
    head = Head(last.seq, last.hash) if last is not None else beginning(known)
    begin = 0
    for place in walk(segment, head):
        if isinstance(place, Break) or place.record.wall > after.wall:
            break
        head, begin = Head(place.record.seq, place.record.hash), place.end
    return number_of(segment), head, begin


def _began(segment: Path) -> float:
    """The time of a segment's first record, infinite where it has none."""
    with segment.open("rb") as file:
        line = file.readline(_LONGEST)
    try:
        return decode(line).wall
    except (ValueError, TypeError):
        return math.inf


def _unfinished(found: Break, last: Path) -> bool:
    """Whether somebody is writing the line that breaks."""
    if found.segment != last:
        return False
    with found.segment.open("rb") as file:
        file.seek(found.begin)
        return b"\n" not in file.read(_LONGEST)
