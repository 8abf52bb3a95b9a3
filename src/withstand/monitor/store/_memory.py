"""What a part of operations must remember of itself, by name."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ._store import Store

_TABLE = "CREATE TABLE IF NOT EXISTS memory (name TEXT PRIMARY KEY, told TEXT NOT NULL)"


class Memory:
    """Plain values of a store, each by a name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def get(self, name: str) -> Any:
        """What was put last, None where nothing was."""
        rows = self._store.rows("SELECT told FROM memory WHERE name = ?", (name,))
        return json.loads(rows[0]["told"]) if rows else None

    def put(self, name: str, told: Any) -> None:
        """Remember plain values."""
        with self._store.writing() as file:
            self.within(file, name, told)

    @staticmethod
    def within(file: sqlite3.Connection, name: str, told: Any) -> None:
        """The same as a part of a transaction."""
        file.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (name, json.dumps(told)))
