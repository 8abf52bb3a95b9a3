"""Who did what, in a chain that tells whether a line was changed or taken out."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..._errors import OperationError
from ...evidence.log import Head
from ._store import Store

_TABLE = """
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, told TEXT NOT NULL, hash TEXT NOT NULL
)
"""


@dataclass(frozen=True, kw_only=True)
class Act:
    """One action: who did what, about what, when (seconds since 1970), and what came of it.

    who: a person's name, or a part of the system such as `responder`. role: viewer, responder,
    admin, or `system`.
    """

    who: str
    role: str
    action: str
    about: str = ""
    wall: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)


class Audit:
    """The actions of a store; there is no way to change one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def add(self, act: Act) -> int:
        """Write an action down; its number."""
        with self._store.writing() as file:
            return self.within(file, act)

    def within(self, file: sqlite3.Connection, act: Act) -> int:
        """The same as a part of a transaction, so that an action and its note cannot part."""
        last = file.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        seq, before = (0, "") if last is None else (last["seq"], last["hash"])
        told = json.dumps({**asdict(act), "wall": act.wall or time.time()})
        file.execute("INSERT INTO audit VALUES (?, ?, ?)", (seq + 1, told, _hash(before, told)))
        return int(seq) + 1

    def last(self, count: int = 1000, *, about: str | None = None) -> list[Act]:
        """The newest actions, newest first."""
        rows = self._store.rows(
            "SELECT told FROM audit ORDER BY seq DESC LIMIT ?", (count if about is None else -1,)
        )
        found = (Act(**json.loads(row["told"])) for row in rows)
        return [act for act in found if about in (None, act.about)][:count]

    def head(self) -> Head:
        """The number and the hash of the last action; 0 and nothing where there is none."""
        rows = self._store.rows("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        return Head(rows[0]["seq"], rows[0]["hash"]) if rows else Head(0, "")

    def has(self, head: Head) -> bool:
        """Whether the action of this number still has this hash."""
        rows = self._store.rows("SELECT hash FROM audit WHERE seq = ?", (head.seq,))
        return bool(rows) and rows[0]["hash"] == head.hash

    def verify(self, anchors: Iterable[Head] = ()) -> int:
        """How many actions there are; raises OperationError at the first that does not follow.

        anchors: heads that were kept elsewhere. Whoever can write the file can make another chain,
        and not one that contains them.
        """
        wanted: dict[int, set[str]] = {}
        for anchor in anchors:
            wanted.setdefault(anchor.seq, set()).add(anchor.hash)
        before, n = "", 0
        for n, row in enumerate(self._store.rows("SELECT * FROM audit ORDER BY seq"), 1):
            if row["seq"] != n or row["hash"] != _hash(before, row["told"]):
                raise OperationError(
                    f"action {n} of {self._store.path} does not follow from the one before; "
                    "somebody has changed the file"
                )
            if wanted.pop(n, {row["hash"]}) != {row["hash"]}:
                raise OperationError(
                    f"action {n} of {self._store.path} is not the one that the anchor vouches for; "
                    "somebody has written this one, or one before it, anew"
                )
            before = row["hash"]
        if wanted:
            raise OperationError(
                f"action {min(wanted)} of {self._store.path} is gone, and an anchor vouches for "
                f"it; {n} are left, so somebody has cut the end off"
            )
        return n


def _hash(before: str, told: str) -> str:
    return hashlib.sha256(f"{before}\n{told}".encode()).hexdigest()
