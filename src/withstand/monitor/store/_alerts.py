"""Alerts, and the campaigns that they are about."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ._store import Store

Severity = Literal["page", "ticket"]
_TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    fingerprint TEXT NOT NULL, starts REAL NOT NULL, ends REAL, campaign TEXT NOT NULL,
    told TEXT NOT NULL, PRIMARY KEY (fingerprint, starts)
);
CREATE INDEX IF NOT EXISTS alerts_open ON alerts (ends);
CREATE TABLE IF NOT EXISTS campaigns (
    id TEXT PRIMARY KEY, last REAL NOT NULL, open INTEGER NOT NULL, told TEXT NOT NULL
)
"""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that somebody is told of: page, wake them; ticket, let them read it tomorrow.

    labels: what it is, among them alertname and severity, of which the fingerprint is made.
    annotations: what is said of it, which may change while it lasts. starts, ends: seconds since
    1970, ends None while it lasts. campaign: the id of the campaign that it is about, or empty.
    suppressed: the experiment that explains it, or empty: it is kept, and nobody is told.
    """

    labels: dict[str, str]
    starts: float
    annotations: dict[str, str] = field(default_factory=dict)
    ends: float | None = None
    campaign: str = ""
    suppressed: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.labels["alertname"]

    @property
    def severity(self) -> Severity:
        """Whether somebody is woken."""
        return "page" if self.labels.get("severity") == "page" else "ticket"

    @property
    def fingerprint(self) -> str:
        """What tells it from alerts with other labels (16 hex digits)."""
        text = json.dumps(sorted(self.labels.items()), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Flagged requests that belong together: of one client, or of many that do the same.

    clients: how many keys; keys, inputs: ids and fingerprints of the first of them, for who looks
    closer. requests: all of these clients', flagged: those that were, distinct: different inputs
    among the flagged. first, last: seconds since 1970, of flagged requests. sensors: how often each
    has flagged. experiment: whose probes they are, or empty.
    """

    id: str
    model: str
    kind: Literal["client", "distributed"]
    first: float
    last: float
    tenant: str = ""
    clients: int = 1
    keys: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    requests: int = 0
    flagged: int = 0
    distinct: int = 0
    sensors: dict[str, int] = field(default_factory=dict)
    experiment: str = ""
    open: bool = True


class Alerts:
    """The alerts and campaigns of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.make(_TABLES)

    def fire(self, alert: Alert) -> bool:
        """Note that it holds; True if it did not before. An open one keeps its start."""
        found = self.open(alert.fingerprint)
        told = alert if found is None else replace(alert, starts=found.starts)
        self._put(told)
        return found is None

    def resolve(self, fingerprint: str, wall: float) -> bool:
        """Note that it holds no more; False if it did not."""
        found = self.open(fingerprint)
        if found is not None:
            self._put(replace(found, ends=wall))
        return found is not None

    def open(self, fingerprint: str) -> Alert | None:
        """The alert that holds at present."""
        rows = self._store.rows(
            "SELECT told FROM alerts WHERE fingerprint = ? AND ends IS NULL", (fingerprint,)
        )
        return _alert(rows[0]["told"]) if rows else None

    def all(self, *, open: bool | None = None, last: int = 1000) -> list[Alert]:
        """The newest alerts, newest first; open: those that hold, or those that do not."""
        which = {None: "TRUE", True: "ends IS NULL", False: "ends IS NOT NULL"}[open]
        rows = self._store.rows(
            f"SELECT told FROM alerts WHERE {which} ORDER BY starts DESC LIMIT ?", (last,)
        )
        return [_alert(row["told"]) for row in rows]

    def ended(self, since: float) -> list[Alert]:
        """Those that have ended after a time (seconds since 1970), however many they are."""
        rows = self._store.rows("SELECT told FROM alerts WHERE ends > ?", (since,))
        return [_alert(row["told"]) for row in rows]

    def put_campaign(self, campaign: Campaign) -> None:
        """Write down how a campaign is by now."""
        with self._store.writing() as file:
            self.campaign_within(file, campaign)

    @staticmethod
    def campaign_within(file: sqlite3.Connection, campaign: Campaign) -> None:
        """The same as a part of a transaction."""
        file.execute(
            "INSERT INTO campaigns VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "last = excluded.last, open = excluded.open, told = excluded.told",
            (campaign.id, campaign.last, campaign.open, json.dumps(asdict(campaign))),
        )

    def campaign(self, identity: str) -> Campaign | None:
        """A campaign by its id."""
        rows = self._store.rows("SELECT told FROM campaigns WHERE id = ?", (identity,))
        return _campaign(rows[0]["told"]) if rows else None

    def campaigns(self, *, open: bool | None = None, last: int = 1000) -> list[Campaign]:
        """The newest campaigns, newest first."""
        which = {None: "TRUE", True: "open", False: "NOT open"}[open]
        rows = self._store.rows(
            f"SELECT told FROM campaigns WHERE {which} ORDER BY last DESC LIMIT ?", (last,)
        )
        return [_campaign(row["told"]) for row in rows]

    def _put(self, alert: Alert) -> None:
        with self._store.writing() as file:
            file.execute(
                "INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?)",
                (
                    alert.fingerprint, alert.starts, alert.ends, alert.campaign,
                    json.dumps(asdict(alert)),
                ),
            )  # fmt: skip


def _alert(told: str) -> Alert:
    return Alert(**json.loads(told))


def _campaign(told: str) -> Campaign:
    found: dict[str, Any] = json.loads(told)
    return Campaign(**{**found, "keys": tuple(found["keys"]), "inputs": tuple(found["inputs"])})
