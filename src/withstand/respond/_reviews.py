"""What people say of inputs that were flagged."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Literal

from ..monitor import Store

Verdict = Literal["adversarial", "benign"]
_TABLE = """
CREATE TABLE IF NOT EXISTS reviews (fingerprint TEXT PRIMARY KEY, wall REAL, told TEXT NOT NULL)
"""


@dataclass(frozen=True, kw_only=True)
class Review:
    """Somebody's verdict on a flagged input: adversarial as flagged, or benign and released.

    fingerprint: of the input, as evidence has it. seq: of the record that was looked at. label: the
    true class, None where nothing is said of it.
    """

    fingerprint: str
    verdict: Verdict
    who: str
    wall: float
    seq: int = 0
    why: str = ""
    label: int | None = None


class Reviews:
    """The reviews of a store; the last one of an input counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def put(
        self,
        fingerprint: str,
        verdict: Verdict,
        who: str,
        *,
        seq: int,
        why: str,
        label: int | None = None,
    ) -> Review:
        """Write a verdict down."""
        new = Review(
            fingerprint=fingerprint, verdict=verdict, who=who, wall=time.time(), seq=seq, why=why,
            label=label,
        )  # fmt: skip
        with self._store.writing() as file:
            file.execute(
                "INSERT OR REPLACE INTO reviews VALUES (?, ?, ?)",
                (fingerprint, new.wall, json.dumps(asdict(new))),
            )
        return new

    def of(self, fingerprint: str) -> Review | None:
        """The verdict on an input, None where nobody has looked at it."""
        rows = self._store.rows("SELECT told FROM reviews WHERE fingerprint = ?", (fingerprint,))
        return Review(**json.loads(rows[0]["told"])) if rows else None

    def all(self) -> list[Review]:
        """All verdicts, oldest first."""
        rows = self._store.rows("SELECT told FROM reviews ORDER BY wall")
        return [Review(**json.loads(row["told"])) for row in rows]
