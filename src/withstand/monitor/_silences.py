"""Silences: alerts that receivers are not told of for a while, by somebody's word."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from .._errors import OperationError, did_you_mean, listed
from ._alerting import BROKEN, LABELS
from .store import Act, Alert, Audit, Store

HOURS = 168.0
"""The longest silence."""

_TABLE = """
CREATE TABLE IF NOT EXISTS silences (id TEXT PRIMARY KEY, until REAL NOT NULL, told TEXT NOT NULL)
"""


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Receivers are not told that alerts with these labels begin; from and until in seconds."""

    id: str
    labels: dict[str, str]
    since: float
    until: float
    who: str
    why: str

    def covers(self, alert: Alert, now: float) -> bool:
        """Whether it is about an alert that holds now, or that ended while it lasted."""
        at = now if alert.ends is None else alert.ends
        return (
            # Whoever broke the evidence could have given the silence, too.
            alert.name != BROKEN
            and self.since <= at < self.until
            and all(alert.labels.get(name) == value for name, value in self.labels.items())
        )


class Silences:
    """The silences of a store. What is silenced is still counted, shown and responded to."""

    def __init__(self, store: Store) -> None:
        self._store, self._audit = store, Audit(store)
        store.make(_TABLE)

    def add(
        self, labels: Mapping[str, str], hours: float, *, who: str, why: str, now: float
    ) -> Silence:
        """Be silent about alerts with these labels; raises OperationError for what cannot be."""
        if not labels or labels.get("alertname") == BROKEN:
            raise OperationError(
                "a silence of everything, or of broken evidence, cannot be; name labels such as "
                "alertname=WithstandBudgetBurn and slo=anomalies"
            )
        if unknown := [name for name in labels if name not in LABELS]:
            hint = did_you_mean(unknown[0], LABELS) or ";"
            raise OperationError(
                f"no alert has a label {unknown[0][:40]!r}{hint} the labels are {listed(LABELS)}"
            )
        if not 0 < hours <= HOURS or not math.isfinite(hours):
            raise OperationError(f"{hours:g} hours cannot be; give above 0 and at most {HOURS:g}")
        if not why.strip():
            raise OperationError("a reason is missing; say why nobody shall be told")
        made = Silence(
            id=secrets.token_hex(6), labels=dict(labels), since=now, until=now + 3600 * hours,
            who=who, why=why,
        )  # fmt: skip
        self._put(made, "silence", who, now)
        return made

    def end(self, identity: str, *, who: str, now: float) -> Silence:
        """End a silence now; raises OperationError where none of this id lasts."""
        found = [one for one in self.all(now) if one.id == identity]
        if not found:
            raise OperationError(
                f"no silence {identity[:40]!r} lasts; see `withstand monitor silences`"
            )
        ended = Silence(**{**asdict(found[0]), "until": now})
        self._put(ended, "unsilence", who, now)
        return ended

    def all(self, since: float) -> list[Silence]:
        """Those that last at a time or began or ended after it."""
        rows = self._store.rows(
            "SELECT told FROM silences WHERE until > ? ORDER BY until", (since,)
        )
        return [Silence(**json.loads(row["told"])) for row in rows]

    def _put(self, silence: Silence, action: str, who: str, now: float) -> None:
        told = asdict(silence)
        with self._store.writing() as file:
            file.execute(
                "INSERT OR REPLACE INTO silences VALUES (?, ?, ?)",
                (silence.id, silence.until, json.dumps(told)),
            )
            self._audit.within(
                file,
                Act(
                    who=who, role="system", action=action, about=f"silence:{silence.id}",
                    wall=now, detail=told,
                ),
            )  # fmt: skip
