"""Where in a log the records are that somebody asks for, in a file that can be made anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._errors import EvidenceError
from ._record import Head, Record, decode
from ._segment import Break, Place, beginning, name_of, number_of, segments, walk

NAME = "index.sqlite"
_FIELDS = ("tenant", "key", "decision", "fingerprint")
_PREFIX = 8
_TABLE = f"""
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY, hash TEXT, segment INTEGER, begin INTEGER, end INTEGER,
    wall REAL, kind TEXT, {", ".join(f"{name} TEXT" for name in _FIELDS)}
);
CREATE INDEX IF NOT EXISTS by_wall ON records (wall);
"""
_EACH = "".join(
    f"CREATE INDEX IF NOT EXISTS by_{name} ON records ({name}, seq);" for name in _FIELDS
)


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which records are asked for: those with all the values that are not None.

    key: 8 or more characters of its beginning are enough. since, until: seconds since 1970, of the
    wall clock, the latter not included.
    """

    kind: str | None = None
    tenant: str | None = None
    key: str | None = None
    decision: str | None = None
    fingerprint: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, record: Record) -> bool:
        """Whether a record is one of them."""
        return (
            self.kind in (None, record.kind)
            and (self.since is None or record.wall >= self.since)
            and (self.until is None or record.wall < self.until)
            and all(
                wanted is None or _fits(name, wanted, record.content.get(name))
                for name, wanted in self._wanted()
            )
        )

    def where(self) -> tuple[str, list[Any]]:
        """The same for SQLite: a condition and its values."""
        asked = [("kind = ?", self.kind), ("wall >= ?", self.since), ("wall < ?", self.until)]
        for name, wanted in self._wanted():
            if _begins(name, wanted):
                # What begins so sorts between the two.
                asked += [(f"{name} >= ?", wanted), (f"{name} < ?", f"{wanted}{chr(0x10FFFF)}")]
            else:
                asked.append((f"{name} = ?", wanted))
        given = [(text, value) for text, value in asked if value is not None]
        return " AND ".join(["TRUE", *(text for text, _ in given)]), [one for _, one in given]

    def _wanted(self) -> list[tuple[str, str | None]]:
        return [(name, getattr(self, name)) for name in _FIELDS]


def _begins(name: str, wanted: str | None) -> bool:
    """Whether the beginning of a value is enough."""
    return name == "key" and wanted is not None and len(wanted) >= _PREFIX


def _fits(name: str, wanted: str, found: Any) -> bool:
    if _begins(name, wanted) and isinstance(found, str):
        return found.startswith(wanted)
    return bool(found == wanted)


class Index:
    """The index of a log's folder, in a file beside its segments.

    The segments stay the truth: each record that is found is read from there, checked against its
    own hash and the query, and an index that does not fit is made anew. `verify` never asks it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME

    def update(self) -> Break | None:
        """Take in what is new in the log; a Break where its chain breaks.

        Raises EvidenceError where the index cannot be written or the log not be read.
        """
        try:
            return self._updated()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._unusable(error) from None
            self._remove()
        try:
            return self._updated()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from None

    def find(self, query: Query, last: int | None = None) -> list[Record]:
        """The records that are asked for, or the newest `last` of them, oldest first."""
        condition, values = query.where()
        asked = (
            f"SELECT seq, segment, begin, end FROM records WHERE {condition} "
            "ORDER BY seq DESC LIMIT ?"
        )
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as index:
                rows = index.execute(asked, [*values, -1 if last is None else last]).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        found = [self._read(*row) for row in reversed(rows)]
        return [record for record in found if query.matches(record)]

    def _updated(self) -> Break | None:
        known = segments(self.folder)
        with closing(sqlite3.connect(self.path)) as index, index:
            index.executescript(_TABLE + _EACH)
            first = number_of(known[0]) if known else 1
            index.execute("DELETE FROM records WHERE segment < ?", (first,))
            head, segment, begin = self._reached(index, known)
            for path in known:
                if number_of(path) < segment:
                    continue
                start = begin if number_of(path) == segment else 0
                for place in walk(path, head, start):
                    if isinstance(place, Break):
                        return place
                    head = Head(place.record.seq, place.record.hash)
                    index.execute(
                        f"INSERT INTO records VALUES ({', '.join('?' * (7 + len(_FIELDS)))})",
                        _row(place),
                    )
        return None

    def _reached(self, index: sqlite3.Connection, known: list[Path]) -> tuple[Head, int, int]:
        """How far it has got: head, segment and the byte in it; the start if it does not fit."""
        row = index.execute(
            "SELECT seq, hash, segment, begin, end FROM records ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        if row is not None:
            seq, digest, segment, begin, end = row
            try:
                if self._read(seq, segment, begin, end).hash == digest:
                    return Head(seq, digest), segment, end
            except EvidenceError:
                pass
            # A crash has cut the log back, or it is another log.
            index.execute("DELETE FROM records")
        return beginning(known), number_of(known[0]) if known else 1, 0

    def _read(self, seq: int, segment: int, begin: int, end: int) -> Record:
        try:
            with (self.folder / name_of(segment)).open("rb") as file:
                file.seek(begin)
                record = decode(file.read(end - begin))
            if record.seq != seq:
                raise ValueError("another record")
        except (OSError, ValueError, TypeError) as error:
            raise EvidenceError(
                f"{self.path} does not fit its log (record {seq}: {error}); remove it"
            ) from None
        return record

    def _remove(self) -> None:
        for path in self.folder.glob(f"{NAME}*"):
            path.unlink(missing_ok=True)

    def _unusable(self, error: sqlite3.Error) -> EvidenceError:
        return EvidenceError(f"{self.path} cannot be used: {error}; remove it")


def indexed(folder: Path, query: Query, last: int | None = None) -> Iterator[Record] | None:
    """The records that an up-to-date index knows of; None where there is none to be had."""
    index = Index(folder)
    if not index.path.exists():
        return None
    try:
        return None if index.update() is not None else iter(index.find(query, last))
    except EvidenceError:
        return None


def _row(place: Place) -> list[Any]:
    record = place.record
    told = [record.content.get(name) for name in _FIELDS]
    return [
        record.seq, record.hash, number_of(place.segment), place.begin, place.end, record.wall,
        record.kind, *(one if isinstance(one, str) else None for one in told),
    ]  # fmt: skip
