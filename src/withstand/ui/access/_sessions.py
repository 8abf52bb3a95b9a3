"""Who is logged in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...monitor import Store
from ._accounts import Account, Accounts

_TABLE = """
CREATE TABLE IF NOT EXISTS sessions (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, stamp TEXT NOT NULL, began REAL NOT NULL,
    seen REAL NOT NULL, told TEXT NOT NULL
)
"""
_MOST = 20
_MINUTE = 60.0


@dataclass(frozen=True, kw_only=True)
class Session:
    """Somebody who is logged in, known by a token of which the store has a digest alone."""

    account: Account
    token: str

    @property
    def form_token(self) -> str:
        """What each form carries, so that no other site can send one (hex)."""
        return form_token(self.token)


class Sessions:
    """The sessions of a store; hours: until they end, minutes: without a request."""

    def __init__(
        self, store: Store, accounts: Accounts, *, hours: float = 12.0, minutes: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store, self._accounts, self._clock = store, accounts, clock
        self._life, self._idle = 3600.0 * hours, _MINUTE * minutes
        store.make(_TABLE)

    def begin(self, account: Account) -> Session:
        """A new session; the oldest end where somebody has too many."""
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._store.writing() as file:
            file.execute(
                "DELETE FROM sessions WHERE began < ? OR seen < ?",
                (now - self._life, now - self._idle),
            )
            file.execute(
                "DELETE FROM sessions WHERE name = ? AND digest NOT IN (SELECT digest FROM "
                "sessions WHERE name = ? ORDER BY began DESC LIMIT ?)",
                (account.name, account.name, _MOST - 1),
            )
            file.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, '')",
                (_digest(token), account.name, account.stamp, now, now),
            )
        return Session(account=account, token=token)

    def find(self, token: str, *, present: bool = True) -> Session | None:
        """The session of a token, None where there is none any more.

        present: whether somebody is there, and not only a page that refreshes itself.
        """
        rows = self._store.rows("SELECT * FROM sessions WHERE digest = ?", (_digest(token),))
        if not rows:
            return None
        row, now = rows[0], self._clock()
        account = self._accounts.get(row["name"])
        # A clock that was set back must not keep a session for ever.
        over = not 0 <= now - row["began"] + _MINUTE < self._life or now - row["seen"] > self._idle
        if over or account is None or not hmac.compare_digest(account.stamp, row["stamp"]):
            self.end(token)
            return None
        if present and now - row["seen"] > _MINUTE:
            with self._store.writing() as file:
                file.execute("UPDATE sessions SET seen = ? WHERE digest = ?", (now, row["digest"]))
        return Session(account=account, token=token)

    def end(self, token: str) -> None:
        """Log out."""
        with self._store.writing() as file:
            file.execute("DELETE FROM sessions WHERE digest = ?", (_digest(token),))

    def tell(self, token: str, text: str) -> None:
        """Leave a message for the next page."""
        with self._store.writing() as file:
            file.execute("UPDATE sessions SET told = ? WHERE digest = ?", (text, _digest(token)))

    def told(self, token: str) -> str:
        """The message that was left, once."""
        mine = (_digest(token),)
        rows = self._store.rows("SELECT told FROM sessions WHERE digest = ?", mine)
        if not rows or not rows[0]["told"]:
            return ""
        with self._store.writing() as file:
            file.execute("UPDATE sessions SET told = '' WHERE digest = ?", mine)
        return str(rows[0]["told"])


def form_token(token: str) -> str:
    """What a form carries whose page was given to the holder of a token."""
    return hmac.new(token.encode(), b"withstand form 1", hashlib.sha256).hexdigest()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
