"""Limits held against figures: pass, fail or inconclusive."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from .._errors import ConfigError
from .._version import __version__
from ..config import GateConfig, Limit, UnitLimit
from ..stats import Interval
from ._in_report import IN_REPORTS
from ._measured import Measured

Outcome = Literal["pass", "fail", "inconclusive"]

ATTACKED = ("robust_accuracy", "fooling_rate", "robust_accuracy_drop", *IN_REPORTS)
EXIT: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
SCHEMA = "urn:withstand:gate:1"
TRUST = ("red", "amber", "green")
_FAR = 1_000_000
_UNDETECTED = "gate.detection names no folder with detection.json; run `withstand detect evaluate`"
_ABSENT = {
    "adversarial_test_coverage": "gate.coverage names no file that is there; run `pytest "
    "--robustness-coverage`",
    "certified_accuracy": "nothing was certified; run `withstand certify` and judge its report "
    "with --report",
    **dict.fromkeys(
        IN_REPORTS, "it is counted by `withstand evaluate` alone; judge its report, --report"
    ),
    "detection_rate": _UNDETECTED,
    "false_positive_rate": _UNDETECTED,
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit: what it asks, what was measured, and the outcome with its reason in words.

    figure: None where nothing was measured, and for trust, whose verdict it has instead. found:
    what was measured, in a few characters.
    """

    metric: str
    limit: str
    outcome: Outcome
    figure: Interval | None = None
    verdict: str | None = None
    words: str = ""
    found: str = "no data"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """All limits with their outcomes, and what they were held against.

    spent: passes over single samples and seconds; samples: more about each of them, if the gate
    itself attacked.
    """

    checks: tuple[Check, ...]
    measured: Measured
    spent: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """fail if one limit is missed, else inconclusive if one is open; pass only if all pass."""
        return outcome_of(self.checks)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT[self.outcome]

    def story(self) -> str:
        """What did not pass, a line for each limit."""
        lines = [
            f"{c.outcome}: {c.metric} is {c.found}, asked for: {c.limit}; {c.words}"
            for c in self.checks
            if c.outcome != "pass"
        ]
        return "\n".join(lines) or "every limit is met"

    def to_json(self) -> str:
        """All of it as JSON text."""
        measured = self.measured
        content = {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "checks": [
                {**vars(c), "figure": None if c.figure is None else c.figure.to_dict()}
                for c in self.checks
            ],
            "basis": measured.basis,
            "trust": measured.trust,
            "cost": self.spent,
            "threat": measured.threat,
            "provenance": {**measured.provenance, "gate": __version__},
            "samples": self.samples,
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def limits_of(asked: GateConfig) -> dict[str, Limit]:
    """The limits on figures by metric; raises ConfigError where nothing at all is asked for."""
    found = {name: value for name, value in asked if isinstance(value, Limit)}
    if not found and asked.trust is None:
        raise ConfigError(
            "gate asks for nothing, so nothing could fail; write a limit into withstand.yaml, e.g. "
            "gate: {robust_accuracy: {min: 0.85}}"
        )
    return found


def least_trust(asked: GateConfig) -> str | None:
    """The least verdict that passes: amber if not said, where a limit rests on attacks."""
    if asked.trust is not None:
        return asked.trust.min
    return "amber" if any(name in ATTACKED for name in limits_of(asked)) else None


def judge(measured: Measured, asked: GateConfig) -> tuple[Check, ...]:
    """A check for each limit, in the configuration's order; trust, which is no figure, last."""
    checks = [_judged(measured, name, limit) for name, limit in limits_of(asked).items()]
    least = least_trust(asked)
    return (*checks, _believed(measured, least)) if least else tuple(checks)


def outcome_of(checks: tuple[Check, ...]) -> Outcome:
    """The outcome of them all; without any it is inconclusive."""
    outcomes = {check.outcome for check in checks}
    if "fail" in outcomes:
        return "fail"
    return "pass" if outcomes == {"pass"} else "inconclusive"


def _judged(measured: Measured, metric: str, limit: Limit) -> Check:
    figure = measured.figures.get(metric)
    asks = in_words(limit)
    if figure is None or not figure.n:
        reason = measured.absent.get(metric, _ABSENT.get(metric, "it was not measured"))
        return Check(metric=metric, limit=asks, outcome="inconclusive", words=reason)
    low, high = limit.min, limit.max
    if (low is not None and figure.high < low) or (high is not None and figure.low > high):
        outcome: Outcome = "fail"
        words = "the whole interval is beyond the limit"
    elif (low is None or figure.low >= low) and (high is None or figure.high <= high):
        outcome, words = "pass", ""
    else:
        outcome, words = "inconclusive", _undecided(figure, limit)
    told = figure.in_units() if isinstance(limit, UnitLimit) else _told(figure)
    return Check(metric=metric, limit=asks, outcome=outcome, figure=figure, words=words, found=told)


def _undecided(figure: Interval, limit: Limit) -> str:
    """Why an interval does not decide, and how many samples would."""
    if not isfinite(figure.value):
        return "the limit is inside the interval; more samples may decide"
    needed = 0.0
    for bound in (limit.min, limit.max):
        if bound is not None and figure.low <= bound <= figure.high:
            half = figure.value - figure.low if bound < figure.value else figure.high - figure.value
            gap = abs(figure.value - bound)
            needed = max(needed, figure.n * (half / gap) ** 2 if gap else _FAR)
    if needed >= _FAR:
        return "the limit is inside the interval, at the figure itself; no number of samples helps"
    return f"the limit is inside the interval; about {round(needed, -2):,.0f} samples would decide"


def _believed(measured: Measured, least: str) -> Check:
    asks = f"at least {least}"
    if measured.trust is None:
        return Check(
            metric="trust", limit=asks, outcome="inconclusive", words="nothing was attacked"
        )
    verdict = str(measured.trust["verdict"])
    enough = TRUST.index(verdict) >= TRUST.index(least)
    doubts = [f["check"] for f in measured.trust["findings"] if f["verdict"] == verdict]
    return Check(
        metric="trust",
        limit=asks,
        outcome="pass" if enough else "inconclusive",
        verdict=verdict,
        found=verdict,
        words="" if enough else f"see the findings: {', '.join(doubts) or 'nothing was checked'}",
    )


def in_words(limit: Limit) -> str:
    """What a limit asks for."""

    def told(bound: float) -> str:
        return f"{bound:g}" if isinstance(limit, UnitLimit) else f"{100 * bound:g} %"

    if limit.min is not None and limit.max is not None:
        return f"{told(limit.min)} to {told(limit.max)}"
    if limit.min is not None:
        return f"at least {told(limit.min)}"
    return f"at most {told(limit.max or 0.0)}"


def _told(figure: Interval) -> str:
    """A share with its interval; a count of everything has none."""
    return f"{100 * figure.value:.1f} %" if figure.low == figure.high else str(figure)
