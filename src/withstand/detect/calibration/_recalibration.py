"""What a new threshold changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stats import Interval, clopper_pearson
from ._threshold import Threshold


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """The threshold that was replaced, and what both flag of the new benign inputs.

    old_rate: with its 95 % interval. new_rate: of the inputs that the new one is taken from, so
    what it promises is its own `bound`.
    """

    time: str
    old: Threshold
    new: Threshold
    old_rate: Interval
    new_rate: Interval

    @property
    def broken(self) -> bool:
        """Whether the old threshold surely flags more of these inputs than it promised."""
        return self.old_rate.low > self.old.fpr

    def to_dict(self) -> dict[str, Any]:
        """As plain values; the new threshold is the next one's old, or the detector's."""
        rates = {"old_rate": self.old_rate.to_dict(), "new_rate": self.new_rate.to_dict()}
        return {
            "time": self.time,
            "old": self.old.to_dict(),
            "new": self.new.to_dict(),
            **rates,
            "broken": self.broken,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Recalibration:
        """From what `to_dict` gave."""
        return cls(
            time=told["time"],
            old=Threshold.from_dict(told["old"]),
            new=Threshold.from_dict(told["new"]),
            old_rate=Interval(**told["old_rate"]),
            new_rate=Interval(**told["new_rate"]),
        )

    def __str__(self) -> str:
        promised = f"{100 * self.old.fpr:g} %"
        word = (
            f"surely more than the {promised} it promised"
            if self.broken
            else f"which does not contradict the {promised} it promised"
        )
        return (
            f"the old threshold {self.old.value:.6g} flags {self.old_rate} of {self.old_rate.n} "
            f"new benign inputs, {word}; the new one, {self.new.value:.6g}, flags {self.new_rate}"
        )


def recalibration(
    old: Threshold,
    new: Threshold,
    scores: NDArray[np.floating[Any]],
    classes: NDArray[np.integer[Any]] | None,
    time: str,
) -> Recalibration:
    """What changed, by benign scores (N,) and predicted classes where a threshold asks for them."""

    def rate(kept: Threshold) -> Interval:
        limits = np.full(len(scores), kept.value)
        if kept.classes and classes is not None:
            limits = np.asarray([kept.value_of(int(label)) for label in classes])
        return clopper_pearson(int((scores > limits).sum()), len(scores))

    return Recalibration(time=time, old=old, new=new, old_rate=rate(old), new_rate=rate(new))
