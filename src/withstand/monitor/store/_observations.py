"""What probes, reports and incidents have shown, each once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from ._store import Store

_TABLE = """
CREATE TABLE IF NOT EXISTS observations (
    id INTEGER PRIMARY KEY, source TEXT UNIQUE NOT NULL, sli TEXT NOT NULL, wall REAL NOT NULL,
    bad INTEGER, value REAL, model TEXT NOT NULL, labels TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS observations_by_sli ON observations (sli, wall)
"""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One event of a share, or one figure.

    sli: M1 to M10. wall: seconds since 1970. bad: whether the event counts against the share, None
    for a figure, which `value` is then. source: who saw it and which of theirs it is, such as
    `probe:RUN:17`; the same source is never counted twice.
    """

    sli: str
    wall: float
    source: str
    bad: bool | None = None
    value: float | None = None
    model: str = ""
    labels: dict[str, str] = field(default_factory=dict)


class Observations:
    """The observations of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def add(self, new: Iterable[Observation]) -> int:
        """Write down those that are not known yet, and return how many they were."""
        rows = [
            (one.source, one.sli, one.wall, one.bad, one.value, one.model, json.dumps(one.labels))
            for one in new
        ]
        with self._store.writing() as file:
            before = file.total_changes
            file.executemany(
                "INSERT OR IGNORE INTO observations (source, sli, wall, bad, value, model, labels) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            return file.total_changes - before

    def of(
        self, sli: str, since: float = 0.0, until: float = float("inf"), *, last: int | None = None
    ) -> list[Observation]:
        """Those of an SLI within [since, until), or the newest `last` of them, oldest first."""
        rows = self._store.rows(
            "SELECT * FROM observations WHERE sli = ? AND wall >= ? AND wall < ? "
            "ORDER BY wall DESC, id DESC LIMIT ?",
            (sli, since, until, -1 if last is None else last),
        )
        return [
            Observation(
                sli=row["sli"],
                wall=row["wall"],
                source=row["source"],
                bad=None if row["bad"] is None else bool(row["bad"]),
                value=row["value"],
                model=row["model"],
                labels=json.loads(row["labels"]),
            )
            for row in reversed(rows)
        ]
