"""Permitted attacks, and how far each has got."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from ..monitor import Store

RunState = Literal["running", "done", "stopped"]
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, began REAL NOT NULL, state TEXT NOT NULL, told TEXT NOT NULL
)
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One campaign with permission; its id is the experiment's in the evidence.

    scope: digest of the signed scope file; who: who has signed it. attack: its name, norm and
    radius in words. queries: spent so far, of `most`. tried: attacked inputs, fooled: those that
    the model got wrong then, detected: those of which a query was flagged. stopped: why it ended
    before its end, or empty.
    """

    id: str
    target: str
    attack: str
    began: float
    scope: str = ""
    who: str = ""
    most: int = 0
    model: str = ""
    state: RunState = "running"
    ended: float | None = None
    queries: int = 0
    tried: int = 0
    fooled: int = 0
    detected: int = 0
    stopped: str = ""


class Runs:
    """The runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def put(self, run: Run) -> None:
        """Write down how far a run has got."""
        with self._store.writing() as file:
            file.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)",
                (run.id, run.began, run.state, json.dumps(asdict(run))),
            )

    def get(self, identity: str) -> Run | None:
        """A run by its id."""
        rows = self._store.rows("SELECT told FROM runs WHERE id = ?", (identity,))
        return Run(**json.loads(rows[0]["told"])) if rows else None

    def all(self, last: int = 1000) -> list[Run]:
        """The newest runs, newest first."""
        rows = self._store.rows("SELECT told FROM runs ORDER BY began DESC LIMIT ?", (last,))
        return [Run(**json.loads(row["told"])) for row in rows]
