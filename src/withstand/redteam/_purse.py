"""Queries, counted before they are sent, so that no restart spends them twice."""

from __future__ import annotations

from .._errors import OperationError
from ..monitor import Store
from ._scope import Caps

_TABLE = """
CREATE TABLE IF NOT EXISTS redteam_spent (
    scope TEXT NOT NULL, run TEXT NOT NULL, input TEXT NOT NULL, queries INTEGER NOT NULL,
    PRIMARY KEY (scope, run, input)
)
"""
_AT_ONCE = 20


class CapError(OperationError):
    """A cap of the scope allows no more queries in all."""


class InputSpentError(OperationError):
    """A cap of the scope allows no more queries on this input."""


class Purse:
    """What a scope (its digest) may still spend, over all of its runs and their restarts.

    Queries are put down some at a time, since a disk takes longer than an answer; `settle` gives
    back those that were not sent. Whoever is killed has spent them.
    """

    def __init__(self, store: Store, scope: str, caps: Caps) -> None:
        self._store, self._scope, self.caps = store, scope, caps
        self._held, self._place = 0, ("", "")
        store.make(_TABLE)

    def take(self, run: str, input: str, queries: int) -> None:
        """Count queries on an input that are about to be sent; raises where a cap forbids them.

        They are on the disk when this returns, whether they arrive or not.
        """
        if self._place != (run, input):
            self.settle()
            self._place = (run, input)
        if self._held < queries:
            self._held += self._put(run, input, queries - self._held)
        self._held -= queries

    def settle(self) -> None:
        """Give back what was put down and not sent."""
        if self._held:
            self._held, held = 0, self._held
            with self._store.writing() as file:
                file.execute(
                    "UPDATE redteam_spent SET queries = queries - ? "
                    "WHERE scope = ? AND run = ? AND input = ?",
                    (held, self._scope, *self._place),
                )

    def spent(self, run: str | None = None, input: str | None = None) -> int:
        """Queries of all runs, of one, or of one on an input."""
        row = self._store.rows(
            "SELECT coalesce(sum(queries), 0) AS n FROM redteam_spent WHERE scope = ? "
            "AND (? IS NULL OR run = ?) AND (? IS NULL OR input = ?)",
            (self._scope, run, run, input, input),
        )
        here = run in (None, self._place[0]) and input in (None, self._place[1])
        return int(row[0]["n"]) - (self._held if here else 0)

    def _put(self, run: str, input: str, least: int) -> int:
        """Put down at least so many queries, and some more where the caps allow them."""
        with self._store.writing() as file:
            total = file.execute(
                "SELECT coalesce(sum(queries), 0) FROM redteam_spent WHERE scope = ?",
                (self._scope,),
            ).fetchone()[0]
            row = file.execute(
                "SELECT queries FROM redteam_spent WHERE scope = ? AND run = ? AND input = ?",
                (self._scope, run, input),
            ).fetchone()
            mine = int(row[0]) if row else 0
            if total + least > self.caps.queries:
                raise CapError(
                    f"{total} queries were sent, and the scope's cap is {self.caps.queries}; have "
                    "a new scope signed"
                )
            if mine + least > self.caps.per_input:
                raise InputSpentError(
                    f"{mine} queries on input {input} were sent, and the scope's cap is "
                    f"{self.caps.per_input}"
                )
            left = min(self.caps.queries - total, self.caps.per_input - mine)
            put = int(min(left, max(least, _AT_ONCE)))
            file.execute(
                "INSERT INTO redteam_spent VALUES (?, ?, ?, ?) "
                "ON CONFLICT (scope, run, input) DO UPDATE SET queries = queries + ?",
                (self._scope, run, input, put, put),
            )
        return put
