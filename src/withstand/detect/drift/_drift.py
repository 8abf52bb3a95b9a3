"""Drift of what a model receives and answers, and whether it looks like an attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isnan, sqrt
from typing import Any, Literal

import numpy as np

from ..._errors import DataError
from ._traffic import Array, Traffic, Usual
from ._watch import Watch

Kind = Literal["none", "natural", "adversarial", "unclear"]
_MEANS = ("bulk", "tail", "confidence", "spread", "low margins")
# An unmoved bulk is one whose mean rank surely lies this near to the benign one.
_STILL = 0.1


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What the alarms together look like, and why."""

    kind: Kind
    why: str


@dataclass(frozen=True, kw_only=True)
class DriftWatch:
    """Streaming statistics of inputs and answers against what is usual of benign ones.

    Each has a test that may be looked at endlessly (`Watch`); while nothing changes, the
    probability that any of them ever alarms is at most alpha, given that the reference's own limits
    hold. bulk: the mean rank of usual scores. tail: the input anomaly rate (M5). confidence: its
    mean, and spread its variance about the benign mean (M4). low margins: their share. Then the
    share of each class among the answers, among the true labels where they are known, and among
    the answers to anomalies.
    """

    usual: Usual
    watch: Watch

    @classmethod
    def start(cls, usual: Usual, *, alpha: float = 0.05, window: int = 5_000) -> DriftWatch:
        """Before the first input."""
        if not 0 < alpha < 1:
            raise DataError(f"alpha is {alpha:g}; give a share between 0 and 1, such as 0.05")
        if window < 1:
            raise DataError(f"window is {window}; give at least 1 input, such as 5000")
        limits = [usual.limits[name] for name in _MEANS]
        by_class = (usual.answers, usual.labels, usual.anomalies)
        classes = [share for shares in by_class for share in shares]
        parts = len(_MEANS) + len(by_class)
        each = [1 / parts] * len(_MEANS)
        each += [1 / parts / len(shares) for shares in by_class for _ in shares]
        watch = Watch.start(
            above=np.asarray([high for _, high in limits] + classes),
            below=np.asarray([low for low, _ in limits] + [0.0] * len(classes)),
            alpha=alpha * np.asarray(each),
            window=window,
        )
        return cls(usual=usual, watch=watch)

    def update(self, seen: Traffic) -> DriftWatch:
        """With more inputs; raises DataError for scores that are not finite."""
        if not np.isfinite(seen.scores).all() or not np.isfinite(seen.confidences).all():
            raise DataError("scores or confidences are not finite; flag such inputs by themselves")
        known = self.usual
        columns: list[Array] = [
            known.ranks(seen.scores),
            seen.scores > known.tail,
            seen.confidences,
            (seen.confidences - known.centre) ** 2,
            seen.margins < known.low,
        ]
        columns += [seen.answers == label for label in range(len(known.answers))]
        for label in range(len(known.labels)):
            columns.append(np.where(seen.labels < 0, np.nan, seen.labels == label))
        for label in range(len(known.anomalies)):
            columns.append(np.where(seen.scores > known.tail, seen.answers == label, np.nan))
        return replace(self, watch=self.watch.update(np.stack(columns, 1).astype(np.float64)))

    @property
    def names(self) -> tuple[str, ...]:
        """The statistics in order."""
        answers = (f"answers {label}" for label in range(len(self.usual.answers)))
        labels = (f"labels {label}" for label in range(len(self.usual.labels)))
        anomalies = (f"anomalies {label}" for label in range(len(self.usual.anomalies)))
        return (*_MEANS, *answers, *labels, *anomalies)

    @property
    def alarms(self) -> tuple[str, ...]:
        """The statistics that have left what is usual, at some time."""
        return tuple(name for name, at in zip(self.names, self.watch.alarms, strict=True) if at > 0)

    @property
    def confidence_variance(self) -> float:
        """M4: the variance of the confidence in the present window; NaN without inputs."""
        means = dict(zip(self.names, self.watch.means, strict=True))
        return float(means["spread"] - (means["confidence"] - self.usual.centre) ** 2)

    @property
    def anomaly_rate(self) -> float:
        """M5: the share of inputs whose score 1 % of the benign ones exceed, in the window."""
        return float(self.watch.means[_MEANS.index("tail")])

    def reading(self) -> dict[str, Any]:
        """For a monitor, plain values: each mean, its usual range, and when it alarmed first."""
        watch, shift = self.watch, self.shift
        means = {
            name: {
                "value": _number(value),
                "low": float(low),
                "high": float(high),
                "alarmed_at": int(at) or None,
            }
            for name, value, low, high, at in zip(
                self.names, watch.means, watch.below, watch.above, watch.alarms, strict=True
            )
        }
        return {
            "n": watch.n,
            "confidence_variance": _number(self.confidence_variance),
            "anomaly_rate": _number(self.anomaly_rate),
            "shift": asdict(shift),
            "means": means,
        }

    @property
    def shift(self) -> Shift:
        """Natural drift, or an attack, or what cannot be told.

        Natural: most inputs moved and the answers did not gather on a class. Adversarial: the bulk
        is where it was, and beyond it there are more anomalies whose answers gather on a class or
        barely lead. All else is unclear, such as an attacker who stays below the tail.
        """
        alarms = self.alarms
        if not alarms:
            return Shift(kind="none", why=f"nothing has surely changed in {self.watch.n:,} inputs")
        gathered = [name for name in alarms if name.startswith(("answers", "anomalies"))]
        found = f"changed: {', '.join(alarms)}"
        if "bulk" in alarms:
            if gathered:
                return Shift(
                    kind="unclear",
                    why=f"{found}; the bulk of the inputs moved and answers gather as well, as new "
                    "conditions or a large attack would do",
                )
            return Shift(
                kind="natural",
                why=f"{found}; the bulk of the inputs moved, as new conditions do and a few "
                "attackers cannot",
            )
        if "tail" not in alarms:
            return Shift(
                kind="unclear",
                why=f"{found}; the inputs are no more anomalous than before: another mix of benign "
                "inputs, or an attack that the detector does not see",
            )
        if not self._still:
            return Shift(
                kind="unclear",
                why=f"{found}; whether the bulk of the inputs moved is not known yet",
            )
        if gathered or "low margins" in alarms:
            return Shift(
                kind="adversarial",
                why=f"{found}; the bulk of the inputs is as before, and anomalies came whose "
                "answers gather on a class or barely lead",
            )
        return Shift(
            kind="unclear",
            why=f"{found}; anomalies came beside an unchanged bulk: attackers, or a new kind of "
            "inputs",
        )

    @property
    def _still(self) -> bool:
        """Whether the bulk of this window surely is where it was (Hoeffding 1963, at 95 %)."""
        at = _MEANS.index("bulk")
        n, mean = float(self.watch.counts[at]), float(self.watch.means[at])
        middle = sum(self.usual.limits["bulk"]) / 2
        return n > 0 and abs(mean - middle) + sqrt(np.log(40) / (2 * n)) <= _STILL

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"usual": asdict(self.usual), "watch": self.watch.to_dict()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> DriftWatch:
        """From what `to_dict` gave."""
        return cls(usual=Usual.from_dict(told["usual"]), watch=Watch.from_dict(told["watch"]))


def _number(value: float) -> float | None:
    return None if isnan(value) else float(value)
