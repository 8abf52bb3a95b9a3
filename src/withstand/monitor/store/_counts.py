"""Events counted by time: of shares, good and bad; of figures, sums of powers."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ._observations import Observations
from ._store import Store

BUCKET = 60
"""Seconds of a bucket, for as long as a rule's window may ask for it."""

_FINE, _COARSE, _KEPT = 4 * 86_400, 3600, 100 * 86_400
_BEFORE = -1
_TABLES = """
CREATE TABLE IF NOT EXISTS counts (
    sli TEXT NOT NULL, model TEXT NOT NULL, start INTEGER NOT NULL,
    events INTEGER NOT NULL, bad INTEGER NOT NULL, PRIMARY KEY (sli, model, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moments (
    model TEXT NOT NULL, start INTEGER NOT NULL, n INTEGER NOT NULL,
    s1 REAL NOT NULL, s2 REAL NOT NULL, s3 REAL NOT NULL, s4 REAL NOT NULL,
    PRIMARY KEY (model, start)
) WITHOUT ROWID
"""
_ADD = (
    "INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT (sli, model, start) DO UPDATE SET "
    "events = events + excluded.events, bad = bad + excluded.bad"
)
_ADD_MOMENTS = (
    "INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (model, start) DO UPDATE SET "
    "n = n + excluded.n, s1 = s1 + excluded.s1, s2 = s2 + excluded.s2, s3 = s3 + excluded.s3, "
    "s4 = s4 + excluded.s4"
)


class Bucket(NamedTuple):
    """So many events, of which so many bad ones, from a time on (seconds since 1970)."""

    start: int
    events: int
    bad: int


class Moments(NamedTuple):
    """How many values, and the sums of their first four powers."""

    n: int = 0
    s1: float = 0.0
    s2: float = 0.0
    s3: float = 0.0
    s4: float = 0.0

    def add(self, value: float) -> Moments:
        """With one value more."""
        return Moments(
            self.n + 1, self.s1 + value, self.s2 + value**2, self.s3 + value**3, self.s4 + value**4
        )

    def join(self, other: Moments) -> Moments:
        """With other values."""
        n, *sums = (a + b for a, b in zip(self, other, strict=True))
        return Moments(int(n), *sums)


class Counts:
    """The counts of a store: by the minute for four days, by the hour for a hundred, then as one.

    Events that were seen by probes are observations, and are counted together with these.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLES)
        Observations(store)

    @staticmethod
    def within(
        file: sqlite3.Connection,
        counts: Mapping[tuple[str, str, int], Sequence[int]],
        moments: Mapping[tuple[str, int], Moments],
    ) -> None:
        """Add events by (sli, model, start) and values by (model, start), in a transaction."""
        file.executemany(_ADD, [(*key, *value) for key, value in counts.items()])
        file.executemany(_ADD_MOMENTS, [(*key, *value) for key, value in moments.items()])

    def buckets(
        self, sli: str, model: str = "", *, since: float = 0.0, until: float = 1e12,
        width: int = BUCKET,
    ) -> list[Bucket]:  # fmt: skip
        """Those with events, that start within [since, until); model empty: of all models."""
        asked = (
            "SELECT (start / :width) * :width AS at, sum(events) AS events, sum(bad) AS bad FROM ("
            "SELECT start, events, bad FROM counts WHERE sli = :sli AND start >= :since "
            "AND start < :until AND (:model = '' OR model = :model) UNION ALL "
            "SELECT CAST(wall / 60 AS INTEGER) * 60, 1, bad FROM observations WHERE sli = :sli "
            "AND bad IS NOT NULL AND wall >= :since AND wall < :until "
            "AND (:model = '' OR model = :model)) GROUP BY at ORDER BY at"
        )
        values = {"sli": sli, "model": model, "since": max(since, 0.0), "until": until}
        rows = self._store.rows(asked, values | {"width": width})
        return [Bucket(row["at"], row["events"], row["bad"]) for row in rows]

    def total(self, sli: str, model: str = "") -> tuple[int, int]:
        """Events and bad ones since the store was made; they only grow."""
        asked = (
            "SELECT coalesce(sum(events), 0) AS events, coalesce(sum(bad), 0) AS bad FROM ("
            "SELECT events, bad FROM counts WHERE sli = :sli AND (:model = '' OR model = :model) "
            "UNION ALL SELECT 1, bad FROM observations WHERE sli = :sli AND bad IS NOT NULL "
            "AND (:model = '' OR model = :model))"
        )
        (row,) = self._store.rows(asked, {"sli": sli, "model": model})
        return row["events"], row["bad"]

    def moments(self, since: float, until: float = 1e12) -> dict[str, Moments]:
        """The values within a time, by model."""
        rows = self._store.rows(
            "SELECT model, sum(n) AS n, sum(s1) AS s1, sum(s2) AS s2, sum(s3) AS s3, sum(s4) AS s4 "
            "FROM moments WHERE start >= ? AND start < ? GROUP BY model",
            (max(since, 0.0), until),
        )
        return {row["model"]: Moments(*list(row)[1:]) for row in rows}

    def merge(self, now: float) -> None:
        """Put old buckets together; to be called now and then."""
        with self._store.writing() as file:
            for edge, width in ((now - _FINE, _COARSE), (now - _KEPT, 0)):
                new = f"(start / {width}) * {width}" if width else str(_BEFORE)
                for table, add, keys, sums in (
                    ("counts", _ADD, "sli, model", ("events", "bad")),
                    ("moments", _ADD_MOMENTS, "model", ("n", "s1", "s2", "s3", "s4")),
                ):
                    told = ", ".join(f"sum({name})" for name in sums)
                    old = "start >= 0 AND start < ?"
                    rows = file.execute(
                        f"SELECT {keys}, {new} AS at, {told} FROM {table} WHERE {old} "
                        f"GROUP BY {keys}, at",
                        (edge,),
                    ).fetchall()
                    file.execute(f"DELETE FROM {table} WHERE {old}", (edge,))
                    file.executemany(add, [tuple(row) for row in rows])

    @staticmethod
    def shift(file: sqlite3.Connection, since: float, seconds: int) -> None:
        """Move buckets from a time on: the clock was set, and they are as old as before."""
        for table, add in (("counts", _ADD), ("moments", _ADD_MOMENTS)):
            rows = file.execute(f"SELECT * FROM {table} WHERE start >= ?", (since,)).fetchall()
            file.execute(f"DELETE FROM {table} WHERE start >= ?", (since,))
            at = 2 if table == "counts" else 1
            moved = [
                (*row[:at], max(0, row[at] + seconds) // BUCKET * BUCKET, *row[at + 1 :])
                for row in map(tuple, rows)
            ]
            file.executemany(add, moved)
