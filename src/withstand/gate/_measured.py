"""The figures that limits are held against, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..stats import Interval, difference, paired_difference, wilson
from ._baseline import Baseline
from ._in_report import IN_REPORTS, figure, in_report

Array = NDArray[Any]
Extra = Mapping[str, Interval | str]
"""Figures from elsewhere by metric, and for those that are missing the reason."""

DROPS = ("clean_accuracy_drop", "robust_accuracy_drop")
OTHER_THREAT = (
    "the baseline was attacked under another threat; evaluate the last release under this one"
)
NO_BASELINE = "there is no report of a last release; give its folder as gate.baseline"
_HOW = {
    False: "The figures and intervals are those of a finished report.",
    True: "The figures are those of a finished report; {n:,} samples whose attack was ended early "
    "count as fooled in the unfavourable ends of the intervals.",
}
_SAME = ("goal", "access", "norm", "eps", "region", "queries")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures by metric, and for those that are missing the reason.

    trust: as in the report, None where nothing was attacked; basis: where the figures come from, as
    plain values, `how` in a sentence.
    """

    figures: dict[str, Interval]
    absent: dict[str, str] = field(default_factory=dict)
    trust: dict[str, Any] | None
    threat: dict[str, Any]
    provenance: dict[str, Any]
    basis: dict[str, Any]

    def beside(self, extra: Extra) -> Measured:
        """The same with figures from elsewhere."""
        found = {name: value for name, value in extra.items() if isinstance(value, Interval)}
        reasons = {name: value for name, value in extra.items() if isinstance(value, str)}
        figures, absent = {**self.figures, **found}, {**self.absent, **reasons}
        return replace(self, figures=figures, absent=absent)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: data and threat, and who is right and who robust (N,)."""

    data: str
    threat: dict[str, Any]
    right: Array
    robust: Array
    clean: Interval
    withstands: Interval

    @classmethod
    def of(cls, report: dict[str, Any]) -> Side:
        """The side of a report."""
        status = np.asarray(report["samples"]["status"])
        return cls(
            data=report["provenance"]["data"]["digest"],
            threat=report["threat"],
            right=status != "already wrong",
            robust=(status != "already wrong") & (status != "fooled"),
            clean=figure(report["clean_accuracy"]),
            withstands=figure(report["robust_accuracy"]),
        )

    def same_threat(self, other: Side) -> bool:
        """Whether the robust accuracies of both mean the same."""
        return all(self.threat.get(key) == other.threat.get(key) for key in _SAME)


def from_report(report: dict[str, Any], baseline: Baseline | None = None) -> Measured:
    """What a finished report says, a metric under its own name, and its drops from a baseline.

    Samples whose attack a budget ended count as robust in the report; in the unfavourable ends of
    intervals they count as fooled.
    """
    figures = {
        name: figure(value)
        for name, value in report.items()
        if isinstance(value, dict) and value.keys() == {"value", "low", "high", "n"}
    }
    absent: dict[str, str] = {}
    for metric, found in in_report(report).items():
        if isinstance(found, str):
            absent[metric] = found
        else:
            figures[metric] = found
    before = None if baseline is None or baseline.report is None else Side.of(baseline.report)
    now, unsure = Side.of(report), np.asarray(report["samples"]["status"]) == "budget spent"
    worst = _all_fooled(now, unsure)
    if unsure.any():
        fooled, right = int((now.right & ~worst.robust).sum()), int(now.right.sum())
        figures |= {
            "robust_accuracy": replace(figures["robust_accuracy"], low=worst.withstands.low),
            "fooling_rate": replace(figures["fooling_rate"], high=wilson(fooled, right).high),
        }
        for metric in IN_REPORTS:
            figures.pop(metric, None)
            absent[metric] = f"{int(unsure.sum())} attacks were ended early; give them more time"
    if before is None:
        absent |= dict.fromkeys(DROPS, NO_BASELINE)
    else:
        figures["clean_accuracy_drop"] = clean_drop(before, now)
        if before.same_threat(now):
            high = robust_drop(before, worst).high
            figures["robust_accuracy_drop"] = replace(robust_drop(before, now), high=high)
        else:
            absent["robust_accuracy_drop"] = OTHER_THREAT
    return Measured(
        figures=figures,
        absent=absent,
        trust=report["trust"],
        threat=report["threat"],
        provenance=report["provenance"],
        basis={
            "mode": "report",
            "samples": figures["robust_accuracy"].n,
            "how": _HOW[bool(unsure.any())].format(n=int(unsure.sum())),
        },
    )


def _all_fooled(side: Side, unsure: Array) -> Side:
    """The side if the attacks that were ended early had all fooled."""
    robust = side.robust & ~unsure
    return replace(side, robust=robust, withstands=wilson(int(robust.sum()), len(robust)))


def clean_drop(before: Side, now: Side, confidence: float = 0.95) -> Interval:
    """By how much clean accuracy fell, sample by sample where both saw the same data."""
    if before.data != now.data:
        return difference(before.clean, now.clean)
    return _paired(before.right, now.right, confidence)


def robust_drop(before: Side, now: Side, confidence: float = 0.95) -> Interval:
    """By how much robust accuracy fell, sample by sample where both saw the same data."""
    if before.data != now.data:
        return difference(before.withstands, now.withstands)
    return _paired(before.robust, now.robust, confidence)


def _paired(before: Array, now: Array, confidence: float) -> Interval:
    lost, gained = int((before & ~now).sum()), int((~before & now).sum())
    return paired_difference(lost, gained, len(now), confidence)
