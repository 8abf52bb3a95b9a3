"""Incidents: alerts that somebody works on, with all that was done about them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .._errors import OperationError
from ..monitor import Severity, Store

State = Literal["open", "mitigated", "resolved"]
StepState = Literal["pending", "approval", "running", "done", "failed", "skipped"]
_TABLES = """
CREATE TABLE IF NOT EXISTS incidents (
    id INTEGER PRIMARY KEY, opened REAL NOT NULL, state TEXT NOT NULL, told TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS timeline (
    id INTEGER PRIMARY KEY, incident INTEGER NOT NULL, wall REAL NOT NULL, told TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS steps (
    incident INTEGER NOT NULL, number INTEGER NOT NULL, told TEXT NOT NULL,
    PRIMARY KEY (incident, number)
)
"""


@dataclass(frozen=True, kw_only=True)
class Incident:
    """What somebody works on; times are seconds since 1970, None where it has not come so far.

    alerts: fingerprints of the alerts that it groups. mitigated: the attack has no effect any more;
    resolved: nothing is left to do, and the postmortem is written. lead: who works on it.
    """

    id: int
    title: str
    severity: Severity
    opened: float
    model: str = ""
    campaign: str = ""
    alerts: tuple[str, ...] = ()
    state: State = "open"
    mitigated: float | None = None
    resolved: float | None = None
    lead: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of an incident's timeline: who, what kind of thing, and in words."""

    wall: float
    who: str
    kind: str
    text: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a runbook on an incident, and how far it has got.

    state: pending; approval, where somebody must agree first; running; done; failed; skipped.
    result: what came of it, in words.
    """

    number: int
    runbook: str
    name: str
    action: str
    arguments: dict[str, Any] = field(default_factory=dict)
    state: StepState = "pending"
    began: float | None = None
    ended: float | None = None
    result: str = ""


class Incidents:
    """The incidents of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLES)

    def open(self, title: str, severity: Severity, **told: Any) -> Incident:
        """A new incident; told: more fields of it."""
        now = time.time()
        with self._store.writing() as file:
            last = file.execute("SELECT max(id) FROM incidents").fetchone()[0] or 0
            found = Incident(
                **{"id": last + 1, "title": title, "severity": severity, "opened": now, **told}
            )
            file.execute(
                "INSERT INTO incidents VALUES (?, ?, ?, ?)",
                (found.id, found.opened, found.state, json.dumps(asdict(found))),
            )
        return found

    def get(self, identity: int) -> Incident:
        """An incident by its number; raises OperationError where there is none."""
        rows = self._store.rows("SELECT told FROM incidents WHERE id = ?", (identity,))
        if not rows:
            raise OperationError(f"there is no incident {identity}; see `withstand incident list`")
        return _incident(rows[0]["told"])

    def all(self, *, state: State | None = None, last: int = 1000) -> list[Incident]:
        """The newest incidents, newest first."""
        rows = self._store.rows(
            "SELECT told FROM incidents WHERE ? IS NULL OR state = ? ORDER BY id DESC LIMIT ?",
            (state, state, last),
        )
        return [_incident(row["told"]) for row in rows]

    def change(self, identity: int, **told: Any) -> Incident:
        """Write down some fields anew."""
        with self._store.writing() as file:
            found = replace(self.get(identity), **told)
            file.execute(
                "UPDATE incidents SET state = ?, told = ? WHERE id = ?",
                (found.state, json.dumps(asdict(found)), identity),
            )
        return found

    def note(self, identity: int, entry: Entry) -> None:
        """Add a line to the timeline."""
        with self._store.writing() as file:
            file.execute(
                "INSERT INTO timeline (incident, wall, told) VALUES (?, ?, ?)",
                (identity, entry.wall, json.dumps(asdict(entry))),
            )

    def timeline(self, identity: int) -> list[Entry]:
        """The lines of the timeline, oldest first."""
        rows = self._store.rows(
            "SELECT told FROM timeline WHERE incident = ? ORDER BY wall, id", (identity,)
        )
        return [Entry(**json.loads(row["told"])) for row in rows]

    def put_step(self, identity: int, step: Step) -> None:
        """Write down how far a step has got."""
        with self._store.writing() as file:
            file.execute(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?)",
                (identity, step.number, json.dumps(asdict(step))),
            )

    def steps(self, identity: int) -> list[Step]:
        """The steps of the runbooks, in their order."""
        rows = self._store.rows(
            "SELECT told FROM steps WHERE incident = ? ORDER BY number", (identity,)
        )
        return [Step(**json.loads(row["told"])) for row in rows]


def _incident(told: str) -> Incident:
    found: dict[str, Any] = json.loads(told)
    return Incident(**{**found, "alerts": tuple(found["alerts"])})
