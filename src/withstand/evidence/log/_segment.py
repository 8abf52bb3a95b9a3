"""The files of a log, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..._errors import EvidenceError
from ._record import MOST_BYTES, START, Head, Record, decode

_SUFFIX = ".log"
_LONGEST = MOST_BYTES + 1024


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
    """The segments of a log in their order; raises EvidenceError for one that is missing."""
    try:
        found = sorted(folder.glob(f"*{_SUFFIX}"))
    except OSError as error:
        raise EvidenceError(f"evidence {folder}: {error.strerror}; give a log's folder") from None
    for number, path in enumerate(found, 1):
        if path.name != name_of(number):
            raise EvidenceError(
                f"evidence {folder} has no {name_of(number)} before {path.name}; restore it from a "
                "backup"
            )
    return found


def name_of(number: int) -> str:
    """The file name of a segment by its number, from 1."""
    return f"{number:08d}{_SUFFIX}"


def walk(segment: Path, head: Head) -> Iterator[Place | Break]:
    """The records of a segment that go on from a head; a Break is the last that comes."""
    begin = 0
    with segment.open("rb") as file:
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
    """All records of a log in their order, up to the first Break; raises EvidenceError."""
    head = Head(0, START)
    for segment in segments(Path(folder)):
        for found in walk(segment, head):
            yield found
            if isinstance(found, Break):
                return
            head = Head(found.record.seq, found.record.hash)


def last_head(found: list[Path]) -> Head:
    """The head behind some segments of a log, from their last line; raises EvidenceError."""
    for segment in reversed(found):
        size = segment.stat().st_size
        if not size:
            continue
        with segment.open("rb") as file:
            file.seek(max(0, size - _LONGEST))
            line = file.read().splitlines(keepends=True)[-1]
        try:
            record = decode(line)
        except (ValueError, TypeError) as error:
            raise EvidenceError(
                f"evidence {segment.parent} was changed: the last record of {segment.name} is "
                f"{error}; see `withstand evidence verify`"
            ) from None
        return Head(record.seq, record.hash)
    return Head(0, START)
