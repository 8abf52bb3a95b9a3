"""What a decision counts for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...config._sensors import SENSORS
from ...evidence.log import Record
from ..campaigns import Seen
from ..store import BUCKET, Moments

_MOST = 3.5e38
"""What a 32-bit float holds; the fourth power of more may be none that a float holds."""


@dataclass(kw_only=True)
class Counting:
    """Events and values of decisions, by the minute, until they are written down.

    models: those that the operator has named; others count under no name, since clients make names
    up. latest: the newest bad request by SLI and model, for whoever looks for an example.
    """

    models: frozenset[str] = frozenset()
    counts: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    moments: dict[tuple[str, int], Moments] = field(default_factory=dict)
    latest: dict[str, tuple[str, float]] = field(default_factory=dict)

    def take(self, record: Record) -> Seen:
        """Count a decision, and tell what campaigns must know of it."""
        told = record.content
        model = _text(told.get("model"))
        model = model if model in self.models else ""
        experiment = _text(told.get("experiment"))
        spoke, flagged = _signals(told.get("signals"))
        # What was asked with permission is counted by who asked it.
        if not experiment:
            start = int(record.wall // BUCKET) * BUCKET
            identity = _text(told.get("id"))
            for sli, queries in (("M5", False), ("M7", True)):
                if any((name in SENSORS) == queries for name in spoke):
                    bad = any((name in SENSORS) == queries for name in flagged)
                    self._event(sli, model, start, bad, identity, record.wall)
            for value in _confidences(told.get("answered")):
                place = (model, start)
                self.moments[place] = self.moments.get(place, Moments()).add(value)
        return Seen(
            wall=record.wall, key=_text(told.get("key")), model=model, sensors=tuple(flagged),
            fingerprint=_text(told.get("fingerprint")), tenant=_text(told.get("tenant")),
            experiment=experiment,
        )  # fmt: skip

    def _event(
        self, sli: str, model: str, start: int, bad: bool, identity: str, wall: float
    ) -> None:
        found = self.counts.setdefault((sli, model, start), [0, 0])
        found[0] += 1
        found[1] += bad
        if bad:
            for name in {model, ""}:
                self.latest[f"{sli} {name}"] = (identity[:64], wall)


def _signals(told: Any) -> tuple[list[str], list[str]]:
    """Sensors that gave a score, and those that flagged."""
    spoke, flagged = [], []
    for one in told if isinstance(told, list) else ():
        # Redaction may have left something else.
        if isinstance(one, list) and len(one) == 5 and not one[4]:
            spoke.append(str(one[0]))
            if one[3]:
                flagged.append(str(one[0]))
    return spoke, flagged


def _confidences(told: Any) -> list[float]:
    found = []
    for row in told if isinstance(told, list) else ():
        if isinstance(row, list) and row and isinstance(row[0], list) and len(row[0]) == 2:
            value = row[0][1]
            if isinstance(value, int | float) and abs(value) <= _MOST:
                found.append(float(value))
    return found


def _text(told: Any) -> str:
    return told if isinstance(told, str) else ""
