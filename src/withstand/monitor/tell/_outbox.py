"""What receivers must still be told, on the disk, so that nothing of it is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ..store import Alert, Store

RESEND = 60.0
"""Seconds after which an Alertmanager is told again of what holds, or it would take it as over."""

_KEPT = 3 * 86_400.0
_TABLE = """
CREATE TABLE IF NOT EXISTS outbox (
    receiver TEXT NOT NULL, fingerprint TEXT NOT NULL, starts REAL NOT NULL, state TEXT NOT NULL,
    told TEXT NOT NULL, delivered TEXT NOT NULL DEFAULT '', sent REAL NOT NULL DEFAULT 0,
    changed REAL NOT NULL, PRIMARY KEY (receiver, fingerprint, starts)
)
"""
_PUT = """
INSERT INTO outbox (receiver, fingerprint, starts, state, told, changed) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (receiver, fingerprint, starts) DO UPDATE SET
state = excluded.state, told = excluded.told, changed = excluded.changed
WHERE state != excluded.state OR told != excluded.told
"""


@dataclass(frozen=True, kw_only=True)
class Message:
    """That an alert holds or has ended, for one receiver.

    key: the same however often it is sent, so that the receiver knows a repetition.
    """

    receiver: str
    alert: Alert
    state: Literal["firing", "resolved"]

    @property
    def key(self) -> str:
        """What tells it from other messages (32 hex digits)."""
        text = f"{self.alert.fingerprint}:{self.alert.starts!r}:{self.state}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Outbox:
    """Messages of a store: one row for each alert and receiver, with what was delivered of it.

    It is made from the alerts themselves, again and again, so that nothing is lost between an alert
    and its message. Delivery is at least once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def put(self, receiver: str, alerts: Iterable[Alert], now: float) -> None:
        """Note what a receiver must be told: how these alerts are."""
        rows = [
            (
                receiver, one.fingerprint, one.starts,
                "firing" if one.ends is None else "resolved", json.dumps(asdict(one)), now,
            )
            for one in alerts
        ]  # fmt: skip
        if rows:
            with self._store.writing() as file:
                file.executemany(_PUT, rows)

    def end(self, receiver: str, alerts: Iterable[Alert], now: float) -> None:
        """Note which of these have ended, of those that it must be told of anyway."""
        rows = [
            (json.dumps(asdict(one)), now, receiver, one.fingerprint, one.starts)
            for one in alerts
            if one.ends is not None
        ]
        if rows:
            with self._store.writing() as file:
                file.executemany(
                    "UPDATE outbox SET state = 'resolved', told = ?, changed = ? WHERE receiver = ?"
                    " AND fingerprint = ? AND starts = ? AND state != 'resolved'",
                    rows,
                )

    def due(self, receiver: str, now: float, *, again: bool, most: int = 100) -> list[Message]:
        """What it has not been told; again: and what holds, if that was some time ago.

        That an alert holds comes before that it has ended, even where both are known. What was not
        taken comes last, so that one message that never is holds up no other.
        """
        rows = self._store.rows(
            "SELECT * FROM outbox WHERE receiver = ? AND (delivered != state OR "
            "(? AND state = 'firing' AND NOT sent BETWEEN ? AND ?)) ORDER BY sent, changed LIMIT ?",
            (receiver, again, now - RESEND, now, most),
        )
        found = []
        for row in rows:
            alert = Alert(**json.loads(row["told"]))
            if row["delivered"]:
                found.append(Message(receiver=receiver, alert=alert, state=row["state"]))
            else:
                # Whoever was not told of the beginning would make nothing of the end.
                alert = replace(alert, ends=None)
                found.append(Message(receiver=receiver, alert=alert, state="firing"))
        return found

    def done(self, messages: Iterable[Message], now: float) -> None:
        """Note that messages were delivered; what has changed meanwhile is still due."""
        with self._store.writing() as file:
            file.executemany(
                "UPDATE outbox SET delivered = ?, sent = ? "
                "WHERE receiver = ? AND fingerprint = ? AND starts = ?",
                [
                    (one.state, now, one.receiver, one.alert.fingerprint, one.alert.starts)
                    for one in messages
                ],
            )

    def later(self, messages: Iterable[Message], now: float) -> None:
        """Note that messages were not taken; what was before, and is told again, is due as ever."""
        with self._store.writing() as file:
            file.executemany(
                "UPDATE outbox SET sent = ? WHERE receiver = ? AND fingerprint = ? AND starts = ? "
                "AND delivered != state",
                [(now, one.receiver, one.alert.fingerprint, one.alert.starts) for one in messages],
            )

    def depth(self) -> dict[str, int]:
        """Messages that are not delivered, by receiver."""
        rows = self._store.rows(
            "SELECT receiver, count(*) AS n FROM outbox WHERE delivered != state GROUP BY receiver"
        )
        return {row["receiver"]: row["n"] for row in rows}

    def forget(self, now: float) -> int:
        """Drop what is long over, and tell how much of it never reached its receiver."""
        with self._store.writing() as file:
            old = "state = 'resolved' AND changed < ?"
            asked = f"SELECT count(*) FROM outbox WHERE {old} AND delivered != state"
            lost: int = file.execute(asked, (now - _KEPT,)).fetchone()[0]
            file.execute(f"DELETE FROM outbox WHERE {old}", (now - _KEPT,))
        return lost
