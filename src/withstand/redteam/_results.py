"""What has been found on each input, so that a campaign that was killed goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from ..monitor import Store

Ending = Literal["fooled", "withstood", "already wrong", "refused", "cut", "clean"]
_TABLE = """
CREATE TABLE IF NOT EXISTS redteam_found (
    run TEXT NOT NULL, input TEXT NOT NULL, told TEXT NOT NULL, PRIMARY KEY (run, input)
)
"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """How the attack on one input ended, after so many queries.

    cut: it was killed, and found nothing with what was left; clean: it was only asked about.
    wall: seconds since 1970. distance: of the example in the region's norm, None without one.
    """

    input: str
    ending: Ending
    wall: float
    queries: int
    distance: float | None = None


class Results:
    """What runs have found, input by input."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLE)

    def put(self, run: str, found: Found) -> None:
        """Write one down."""
        with self._store.writing() as file:
            file.execute(
                "INSERT OR REPLACE INTO redteam_found VALUES (?, ?, ?)",
                (run, found.input, json.dumps(asdict(found))),
            )

    def of(self, run: str) -> dict[str, Found]:
        """Those of a run, by input."""
        rows = self._store.rows("SELECT told FROM redteam_found WHERE run = ?", (run,))
        return {one.input: one for one in (Found(**json.loads(row["told"])) for row in rows)}
