"""Incidents: alerts that somebody works on, with all that was done about them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from sqlite3 import Connection
from typing import Any, Literal

from .._errors import OperationError
from ..monitor import Act, Alert, Audit, Severity, Store

State = Literal["open", "mitigated", "resolved"]
StepState = Literal["pending", "approval", "running", "done", "failed", "skipped"]
_TABLES = """
CREATE TABLE IF NOT EXISTS incidents (
    id INTEGER PRIMARY KEY, opened REAL NOT NULL, state TEXT NOT NULL, told TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS timeline (
    id INTEGER PRIMARY KEY, incident INTEGER NOT NULL, wall REAL NOT NULL, told TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS timeline_incident ON timeline (incident);
CREATE INDEX IF NOT EXISTS incidents_unresolved ON incidents (id) WHERE state != 'resolved';
CREATE TABLE IF NOT EXISTS steps (
    incident INTEGER NOT NULL, number INTEGER NOT NULL, told TEXT NOT NULL,
    PRIMARY KEY (incident, number)
);
CREATE TABLE IF NOT EXISTS incident_alerts (
    fingerprint TEXT NOT NULL, starts REAL NOT NULL, incident INTEGER NOT NULL,
    PRIMARY KEY (fingerprint, starts)
);
CREATE TABLE IF NOT EXISTS incident_groups (name TEXT PRIMARY KEY, incident INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS watched (id INTEGER PRIMARY KEY CHECK (id = 1), until REAL NOT NULL)
"""


@dataclass(frozen=True, kw_only=True)
class Incident:
    """What somebody works on; times are seconds since 1970, None where it has not come so far.

    alerts: fingerprints of the alerts that it groups. mitigated: the attack has no effect any more;
    reopened: since when it has had one again; resolved: nothing is left to do, and the postmortem
    is written. lead: who works on it.
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
    reopened: float | None = None
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

    run: number of the first step of the same run of the runbook. state: pending; approval, where
    somebody must agree first; running; done; failed; skipped. approval: whether that is asked for;
    approved: who has agreed. arguments: as the runbook has them, and as they were resolved from the
    moment on that it began. contains: whether the incident counts as mitigated when it is done.
    goes_on: whether the next step is taken where it fails. timeout: seconds until it counts as
    failed. result: what came of it, in words.
    """

    number: int
    runbook: str
    name: str
    action: str
    run: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    approval: bool = False
    approved: str = ""
    contains: bool = False
    goes_on: bool = False
    timeout: float = 60.0
    state: StepState = "pending"
    began: float | None = None
    ended: float | None = None
    result: str = ""


class Incidents:
    """The incidents of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._audit = Audit(store)
        store.make(_TABLES)

    def open(self, title: str, severity: Severity, **told: Any) -> Incident:
        """A new incident; told: more fields of it."""
        with self._store.writing() as file:
            return self._opened(file, title, severity, told)

    def begin(
        self, title: str, severity: Severity, *, model: str, campaign: str, who: str, role: str
    ) -> Incident:
        """An incident on a person's word; the open one of the campaign where there is one."""
        with self._store.writing() as file:
            found = self._grouped(file, f"campaign:{campaign}") if campaign else None
            if found is not None:
                return found
            found = self._opened(file, title, severity, {"model": model, "campaign": campaign})
            if campaign:
                self._group(file, f"campaign:{campaign}", found.id)
            self._note(file, found.id, Entry(wall=found.opened, who=who, kind="open", text=title))
            self._audit.within(
                file,
                Act(who=who, role=role, action="open incident", about=f"incident:{found.id}"),
            )
        return found

    def take(self, alert: Alert, group: str, title: str, who: str) -> tuple[Incident, bool] | None:
        """Let an incident have an alert: the open one of its group, or else a new one.

        The incident, and whether it is new; None where one has the alert already. All of it is one
        transaction, so that an alert is never in two incidents, and a group never has two that are
        not resolved, however many take alerts at one time.
        """
        with self._store.writing() as file:
            known = file.execute(
                "SELECT 1 FROM incident_alerts WHERE fingerprint = ? AND starts = ?",
                (alert.fingerprint, alert.starts),
            ).fetchone()
            if known is not None:
                return None
            found = self._grouped(file, group)
            new, text = found is None, f"{alert.name} fires"
            if found is None:
                model = alert.labels.get("model", "")
                told = {"model": model, "campaign": alert.campaign, "alerts": (alert.fingerprint,)}
                found = self._opened(file, title, alert.severity, told)
                self._group(file, group, found.id)
            else:
                # What wakes somebody makes a page of what nobody was woken for.
                severity = "page" if alert.severity == "page" else found.severity
                alerts = tuple(dict.fromkeys((*found.alerts, alert.fingerprint)))
                found = replace(found, alerts=alerts, severity=severity)
                if _has_effect_again(found, alert):
                    found = replace(found, state="open", mitigated=None, reopened=alert.starts)
                    text += ", and the incident is open again"
                self._put(file, found)
            file.execute(
                "INSERT INTO incident_alerts VALUES (?, ?, ?)",
                (alert.fingerprint, alert.starts, found.id),
            )
            self._note(
                file, found.id,
                Entry(
                    wall=alert.starts, who=who, kind="alert", text=text,
                    detail={"labels": alert.labels, "annotations": alert.annotations},
                ),
            )  # fmt: skip
            action = "open incident" if new else "join incident"
            self._audit.within(
                file, Act(who=who, role="system", action=action, about=f"incident:{found.id}")
            )
        return found, new

    def watched(self, now: float) -> float:
        """When all alerts that had ended were taken (seconds since 1970); `now` the first time."""
        asked = "SELECT until FROM watched"
        rows = self._store.rows(asked)
        if not rows:
            with self._store.writing() as file:
                file.execute("INSERT OR IGNORE INTO watched VALUES (1, ?)", (now,))
            rows = self._store.rows(asked)
        return float(rows[0]["until"])

    def watch(self, until: float) -> None:
        """Note that all alerts that had ended by then are taken."""
        with self._store.writing() as file:
            file.execute("UPDATE watched SET until = ?", (until,))

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

    def unresolved(self) -> list[Incident]:
        """All that somebody still has to do with, newest first, however many have come since."""
        rows = self._store.rows(
            "SELECT told FROM incidents WHERE state != 'resolved' ORDER BY id DESC"
        )
        return [_incident(row["told"]) for row in rows]

    def change(self, identity: int, **told: Any) -> Incident:
        """Write down some fields anew."""
        with self._store.writing() as file:
            return self._changed(file, identity, told)

    def note(self, identity: int, entry: Entry) -> None:
        """Add a line to the timeline."""
        with self._store.writing() as file:
            self._note(file, identity, entry)

    def advance(
        self,
        identity: int,
        entry: Entry,
        act: Act,
        *,
        steps: Sequence[Step] = (),
        **told: Any,
    ) -> Incident:
        """Steps, fields, the timeline's line and the action in one, so that they cannot part."""
        with self._store.writing() as file:
            for step in steps:
                self._put_step(file, identity, step)
            self._note(file, identity, entry)
            self._audit.within(file, act)
            return self._changed(file, identity, told)

    def timeline(self, identity: int) -> list[Entry]:
        """The lines of the timeline, oldest first."""
        rows = self._store.rows(
            "SELECT told FROM timeline WHERE incident = ? ORDER BY wall, id", (identity,)
        )
        return [Entry(**json.loads(row["told"])) for row in rows]

    def put_step(self, identity: int, step: Step) -> None:
        """Write down how far a step has got."""
        with self._store.writing() as file:
            self._put_step(file, identity, step)

    def steps(self, identity: int) -> list[Step]:
        """The steps of the runbooks, in their order."""
        rows = self._store.rows(
            "SELECT told FROM steps WHERE incident = ? ORDER BY number", (identity,)
        )
        return [Step(**json.loads(row["told"])) for row in rows]

    def _opened(
        self, file: Connection, title: str, severity: Severity, told: dict[str, Any]
    ) -> Incident:
        last = file.execute("SELECT max(id) FROM incidents").fetchone()[0] or 0
        found = Incident(
            **{"id": last + 1, "title": title, "severity": severity, "opened": time.time(), **told}
        )
        file.execute(
            "INSERT INTO incidents VALUES (?, ?, ?, ?)",
            (found.id, found.opened, found.state, json.dumps(asdict(found))),
        )
        return found

    def _grouped(self, file: Connection, group: str) -> Incident | None:
        """The incident of a group that is not resolved."""
        row = file.execute(
            "SELECT incident FROM incident_groups WHERE name = ?", (group,)
        ).fetchone()
        found = None if row is None else self.get(row["incident"])
        return None if found is None or found.state == "resolved" else found

    def _group(self, file: Connection, group: str, identity: int) -> None:
        file.execute("INSERT OR REPLACE INTO incident_groups VALUES (?, ?)", (group, identity))

    def _changed(self, file: Connection, identity: int, told: dict[str, Any]) -> Incident:
        found = self.get(identity)
        if found.state == "resolved":
            # A person's word stands against whoever looked before it was said.
            told = {**told, "state": "resolved"}
        found = replace(found, **told)
        self._put(file, found)
        return found

    def _put(self, file: Connection, incident: Incident) -> None:
        file.execute(
            "UPDATE incidents SET state = ?, told = ? WHERE id = ?",
            (incident.state, json.dumps(asdict(incident)), incident.id),
        )

    def _note(self, file: Connection, identity: int, entry: Entry) -> None:
        file.execute(
            "INSERT INTO timeline (incident, wall, told) VALUES (?, ?, ?)",
            (identity, entry.wall, json.dumps(asdict(entry))),
        )

    def _put_step(self, file: Connection, identity: int, step: Step) -> None:
        file.execute(
            "INSERT OR REPLACE INTO steps VALUES (?, ?, ?)",
            (identity, step.number, json.dumps(asdict(step))),
        )


def _has_effect_again(incident: Incident, alert: Alert) -> bool:
    """Whether an alert pages that has begun after its incident was mitigated, and still holds."""
    pages = alert.severity == "page" and alert.ends is None
    return pages and incident.mitigated is not None and alert.starts > incident.mitigated


def _incident(told: str) -> Incident:
    found: dict[str, Any] = json.loads(told)
    return Incident(**{**found, "alerts": tuple(found["alerts"])})
