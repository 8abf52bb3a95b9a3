"""The files of a log, and what is in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..._errors import EvidenceError
from ._record import MOST_BYTES, START, Head, Record, decode

_SUFFIX = ".log"
_LONGEST = MOST_BYTES + 1024
_PATIENCE, _MOMENT = 10, 0.02


class Place(NamedTuple):
    """A record, the segment it is in, and where it begins and ends there, in bytes."""

    record: Record
    segment: Path
    begin: int
    end: int


class Break(NamedTuple):
    """Where the chain of a segment breaks: at which byte, at which record, and why."""

    segment: Path
    begin: int
    seq: int
    why: str

    def __str__(self) -> str:
        return f"record {self.seq} ({self.segment.name}, byte {self.begin}): {self.why}"


def segments(folder: Path) -> list[Path]:
    """The segments of a log in their order, from the first that was not purged.

    Raises EvidenceError for one that is missing between others.
    """
    try:
        found = sorted(folder.glob(f"*{_SUFFIX}"))
    except OSError as error:
        raise EvidenceError(f"evidence {folder}: {error.strerror}; give a log's folder") from None
    for number, path in enumerate(found, number_of(found[0]) if found else 1):
        if path.name != name_of(number):
            raise EvidenceError(
                f"evidence {folder} has no {name_of(number)} before {path.name}; restore it from a "
                "backup"
            )
    return found


def name_of(number: int) -> str:
    """The file name of a segment by its number, from 1."""
    return f"{number:08d}{_SUFFIX}"


def number_of(segment: Path) -> int:
    """The number of a segment by its file name; raises EvidenceError for another name."""
    try:
        return int(segment.stem)
    except ValueError:
        raise EvidenceError(
            f"evidence {segment.parent} holds {segment.name}, which is none of its files; take it "
            "away"
        ) from None


def beginning(found: list[Path]) -> Head:
    """What the first of some segments goes on from: the start, or what was purged before it.

    The latter is what the segment itself says; `verify` looks for the record that vouches for it.
    """
    if not found or number_of(found[0]) == 1:
        return Head(0, START)
    with found[0].open("rb") as file:
        line = file.readline(_LONGEST)
    try:
        record = decode(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise EvidenceError(
            f"evidence {found[0].parent} was changed: the first record of {found[0].name} is "
            f"{error}; restore it from a backup"
        ) from None
    return Head(record.seq - 1, record.prev)


def walk(segment: Path, head: Head, begin: int = 0) -> Iterator[Place | Break]:
    """The records of a segment from a byte on, that go on from a head; a Break is the last."""
    with segment.open("rb") as file:
        file.seek(begin)
        while line := file.readline(_LONGEST):
            try:
                record = decode(line)
            except (ValueError, TypeError, RecursionError) as error:
                yield Break(segment, begin, head.seq + 1, str(error))
                return
            if record.prev != head.hash or record.seq != head.seq + 1:
                why = f"record {record.seq} does not follow record {head.seq}"
                yield Break(segment, begin, head.seq + 1, why)
                return
            head = Head(record.seq, record.hash)
            yield Place(record, segment, begin, begin + len(line))
            begin += len(line)


def read(folder: str | Path) -> Iterator[Place | Break]:
    """All records of a log in their order, up to the first Break; raises EvidenceError.

    A guard may be writing it: half a line at the end is waited for a little.
    """
    found = segments(Path(folder))
    try:
        head = beginning(found)
        for segment in found:
            begin, patience = 0, _PATIENCE if segment is found[-1] else 0
            while True:
                place: Place | Break | None = None
                for place in walk(segment, head, begin):
                    if isinstance(place, Place):
                        head, begin = Head(place.record.seq, place.record.hash), place.end
                        yield place
                if not isinstance(place, Break):
                    break
                if not patience or not _unfinished(segment, begin):
                    yield place
                    return
                patience -= 1
                time.sleep(_MOMENT)
    except OSError as error:
        raise EvidenceError(
            f"evidence {folder} cannot be read: {error.strerror}; if records were purged just now, "
            "try again"
        ) from None


def _unfinished(segment: Path, begin: int) -> bool:
    """Whether half a line is all that is left of a segment."""
    with segment.open("rb") as file:
        file.seek(begin)
        return not file.read(_LONGEST).endswith(b"\n") and segment.stat().st_size - begin < _LONGEST


def last_record(found: list[Path]) -> Record | None:
    """The last record of some segments of a log; raises EvidenceError where it is none."""
    for segment in reversed(found):
        size = segment.stat().st_size
        if not size:
            continue
        with segment.open("rb") as file:
            file.seek(max(0, size - _LONGEST))
            line = file.read().splitlines(keepends=True)[-1]
        try:
            return decode(line)
        except (ValueError, TypeError) as error:
            raise EvidenceError(
                f"evidence {segment.parent} was changed: the last record of {segment.name} is "
                f"{error}; see `withstand evidence verify`"
            ) from None
    return None
