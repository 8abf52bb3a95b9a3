"""What an evaluation of a detector found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...evaluate import Trust, check_writable, schema_of, write
from ...stats import Interval

Array = NDArray[Any]
Level = Literal["holds", "raises cost", "non-adaptive only", "not shown"]
LEVELS: tuple[Level, ...] = ("holds", "raises cost", "non-adaptive only", "not shown")

SCHEMA = "urn:withstand:detection:1"
_HIDDEN = ("benign_scores", "scores", "trust")


@dataclass(frozen=True, kw_only=True)
class Benign:
    """How often benign test inputs are flagged, beside what was promised.

    compatible: the interval does not lie above the promised rate.
    """

    flagged: Interval
    promised: float
    confidence: float
    bound: float
    compatible: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One attack at one radius; intervals are exact (Clopper and Pearson 1934) at 95 %.

    knows: whether the attacker knows of the detector. kept: which example of each sample counts,
    the first success, the surest mistake or the least suspicious one. counts: whether it stays
    within the threat's region, so that it belongs to the worst case. tpr: flagged, of those fooled.
    fooled, usr (fooled and not flagged): shares of all samples that it was tried on. robust: right,
    not flagged and not fooled unseen. rejected: share of its queries that were flagged, where the
    attacker is told. scores: of the fooled.
    """

    name: str
    settings: dict[str, Any]
    knows: bool
    kept: str
    radius: float
    norm: str
    counts: bool
    fooled: Interval
    tpr: Interval
    auc: float
    usr: Interval
    robust: Interval
    forwards: float
    backwards: float
    cpu_seconds: float
    rejected: float | None = None
    note: str = ""
    scores: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def title(self) -> str:
        """The name with what tells it from its neighbours."""
        told = [str(self.settings[k]) for k in ("loss", "steps", "queries") if k in self.settings]
        return f"{self.name} ({', '.join([*told, self.kept])})"


@dataclass(frozen=True, kw_only=True)
class Worst:
    """All attacks at one radius together: for each sample the one that got past counts.

    bare_error: wrong under attack or by itself; error: wrong so and not flagged.
    """

    radius: float
    knows: bool
    fooled: Interval
    tpr: Interval
    usr: Interval
    robust: Interval
    bare_error: Interval
    error: Interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the detector is good for, in a word and in sentences.

    gain: by how much it lowers the share of inputs that an attacker who knows of it fools unseen;
    effort: queries for a success past it over those without it, None where not known.
    """

    level: Level
    words: str
    reasons: tuple[str, ...]
    tpr: Interval
    gain: Interval
    effort: Interval | None


@dataclass(frozen=True, kw_only=True)
class InputCost:
    """CPU microseconds for an input, of the model alone and with the detector."""

    batch: int
    model_batch: float
    batched: float
    model_single: float
    single: float
    passes: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionReport:
    """The result of `evaluate_detector`.

    tpr and robust figures are upper bounds, usr a lower one: a stronger attacker could do better.
    benign_scores (N,) are kept for pictures and not part of the JSON. requests: benign ones a day,
    for the expected alarms.
    """

    detector: dict[str, Any]
    threat: dict[str, Any]
    verdict: Verdict
    benign: Benign
    clean_accuracy: Interval
    rows: tuple[Row, ...]
    worst: tuple[Worst, ...]
    trust: Trust
    cost: InputCost
    followed: str
    requests: int
    provenance: dict[str, Any]
    benign_scores: Array
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> Interval:
        """Benign requests that are flagged in a day, expected from the measured rate."""
        rate, n = self.benign.flagged, self.requests
        return Interval(value=rate.value * n, low=rate.low * n, high=rate.high * n, n=rate.n)

    def at(self, radius: float, *, knows: bool) -> Worst | None:
        """The worst case at a radius, None where nothing was tried there."""
        found = (w for w in self.worst if w.radius == radius and w.knows == knows)
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without what is kept for pictures."""
        values = {name: _plain(value) for name, value in vars(self).items() if name not in _HIDDEN}
        trust = {"verdict": self.trust.verdict, **_plain(vars(self.trust))}
        return {"schema": SCHEMA, **values, "trust": trust}

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Write detection.json and detection.html to a folder; raises OutputError."""
        from ._page import page

        folder = check_writable(folder)
        contents = {"detection.json": self.to_json(), "detection.html": page(self)}
        return [write(folder / name, text.encode()) for name, text in contents.items()]


def detection_schema() -> dict[str, Any]:
    """The published JSON schema (draft 2020-12) of detection.json, from the types of its fields."""
    return schema_of(DetectionReport, SCHEMA, "withstand detection report", _HIDDEN)


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {k: _plain(item) for k, item in vars(value).items() if k not in _HIDDEN}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
