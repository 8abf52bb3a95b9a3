"""What is known while a gate attacks: counts, and the figures they give at any time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluate import Cost
from ..stats import Interval, Survey, clopper_pearson, wilson
from ._baseline import Baseline
from ._measured import (
    DROPS,
    NO_BASELINE,
    OTHER_THREAT,
    Measured,
    Side,
    clean_drop,
    robust_drop,
)
from ._standing import Standing

Array = NDArray[Any]
_VERDICTS = ("green", "amber", "red")

# Half of the 5 % is for all looks on the way together, half for the one when all were attacked.
CONFIDENCE = 0.975
_HOW = {
    False: "{m:,} of the {s:,} samples that stood were attacked, in random order; the intervals "
    "hold at every look (a confidence sequence at 97.5 %, the other 2.5 % are for an end at which "
    "all were attacked).",
    True: "All {s:,} samples that stood were attacked; the intervals are exact, at 97.5 %, because "
    "2.5 % went to the looks on the way.",
}


@dataclass(kw_only=True, eq=False)
class Tally:
    """Counts of a gate that attacks `order`, a random order of those who stand, from its front.

    wanted: the metrics that limits ask for. fallen: whom the attacks fooled; unsure: whom a budget
    ended early. They count as fooled in the lower ends of intervals and as robust in the upper.
    """

    standing: Standing
    order: Array
    digest: str
    threat: dict[str, Any]
    provenance: dict[str, Any]
    wanted: frozenset[str] = frozenset()
    baseline: Baseline | None = None
    tried: int = 0
    fallen: list[int] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)

    @property
    def left(self) -> int:
        """How many stand and were not attacked yet."""
        return len(self.order) - self.tried

    def add(self, report: dict[str, Any]) -> None:
        """Add the report of an attack on the next samples in the order."""
        status = report["samples"]["status"]
        rows = self.order[self.tried : self.tried + len(status)].tolist()
        self.fallen += [r for r, s in zip(rows, status, strict=True) if s in _FELL]
        self.unsure += [r for r, s in zip(rows, status, strict=True) if s == "budget spent"]
        self.tried += len(status)
        self.parts.append(report)

    def survey(self, n: int, *, more: int = 0, fallen: int | None = None) -> Survey:
        """Of n samples who stands and would not fall, after `more` attacks like those before."""
        fell = len(self.fallen) if fallen is None else fallen
        fell += round(more * fell / max(self.tried, 1))
        return Survey(n=n, standing=len(self.order), tried=self.tried + more, fallen=fell)

    def measured(self) -> Measured:
        """The wanted figures as they are now."""
        right = self.standing.right
        figures = {"clean_accuracy": wilson(int(right.sum()), len(right))}
        if "robust_accuracy" in self.wanted:
            figures["robust_accuracy"] = self._share(len(right))
        if "fooling_rate" in self.wanted:
            robust = self._share(int(right.sum()))
            figures["fooling_rate"] = Interval(
                value=1 - robust.value, low=1 - robust.high, high=1 - robust.low, n=robust.n
            )
        absent = self._drops(figures)
        stood = len(self.order)
        return Measured(
            figures=figures,
            absent=absent,
            trust=self._trust(),
            threat=self.threat,
            provenance=self.provenance,
            basis={
                "mode": "sequential",
                "samples": len(right),
                "shown": self.standing.shown,
                "fell_to_shown": int(self.standing.fallen.sum()),
                "stood": stood,
                "attacked": self.tried,
                "fell": len(self.fallen),
                "unsure": len(self.unsure),
                "how": _HOW[not self.left].format(m=self.tried, s=stood),
            },
        )

    def _share(self, n: int) -> Interval:
        """Who stands and would not fall, among n samples with all who stand."""
        least, most = self._falls()
        high = self._withstand(n, least)
        low = self._withstand(n, most) if most > least else high
        return Interval(value=high.value, low=low.low, high=high.high, n=n)

    def _withstand(self, n: int, fell: int) -> Interval:
        if self.left:
            return self.survey(n, fallen=fell).interval(CONFIDENCE)
        return clopper_pearson(len(self.order) - fell, n, CONFIDENCE)

    def _falls(self) -> tuple[int, int]:
        """How many fell at least, and at most."""
        return len(self.fallen), len(self.fallen) + len(self.unsure)

    def _drops(self, figures: dict[str, Interval]) -> dict[str, str]:
        """Add what can be said of drops to the figures; the reasons for what cannot."""
        if self.baseline is None or self.baseline.report is None:
            return dict.fromkeys(DROPS, NO_BASELINE)
        before, now = Side.of(self.baseline.report), self._side(figures)
        figures["clean_accuracy_drop"] = clean_drop(before, now)
        if not before.same_threat(now):
            return {"robust_accuracy_drop": OTHER_THREAT}
        if "robust_accuracy_drop" in self.wanted:
            figures["robust_accuracy_drop"] = self._robust_drop(before, now)
        return {}

    def _robust_drop(self, before: Side, now: Side) -> Interval:
        """The drop to those who stand, plus the share of those who would still fall."""
        if before.data != now.data or not self.left:
            return robust_drop(before, now, CONFIDENCE)
        # Both parts may be wrong, each with half the probability.
        each = (1 + CONFIDENCE) / 2
        certain = robust_drop(before, self._side({}, fell=False), each)
        least, most = (
            self.survey(certain.n, fallen=self.tried - fell).interval(each)
            for fell in self._falls()
        )
        return Interval(
            value=certain.value + (least.value if self.tried else 0.0),
            low=certain.low + least.low,
            high=certain.high + most.high,
            n=certain.n,
        )

    def _side(self, figures: dict[str, Interval], *, fell: bool = True) -> Side:
        right = self.standing.right
        robust = right & ~self.standing.fallen
        if fell:
            robust[self.fallen] = False
        return Side(
            data=self.digest,
            threat=self.threat,
            right=right,
            robust=robust,
            clean=figures.get("clean_accuracy", wilson(0, 0)),
            withstands=figures.get("robust_accuracy", wilson(0, 0)),
        )

    def _trust(self) -> dict[str, Any] | None:
        """The gravest finding of each check in any part; None before the first."""
        gravest: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            for finding in part["trust"]["findings"]:
                rank, check = _VERDICTS.index(finding["verdict"]), finding["check"]
                known = gravest.get(check)
                if known is None or rank > _VERDICTS.index(known["verdict"]):
                    gravest[check] = finding
        # How few samples were attacked is in the intervals already.
        gravest.pop("wide interval", None)
        if not self.parts:
            return None
        verdicts = [finding["verdict"] for finding in gravest.values()]
        return {
            "verdict": max(verdicts, key=_VERDICTS.index, default="amber"),
            "findings": list(gravest.values()),
        }

    def status(self) -> list[str]:
        """What is known of each sample, in the data's order."""
        words = np.full(len(self.standing.right), "already wrong", dtype=object)
        words[self.order] = "not attacked"
        words[self.order[: self.tried]] = "withstood"
        words[self.standing.fallen] = "fooled"
        words[self.fallen] = "fooled"
        words[self.unsure] = "budget spent"
        return [str(word) for word in words]


# An answer that differs from the first look, as of a random model, is a fall too.
_FELL = ("fooled", "already wrong")
