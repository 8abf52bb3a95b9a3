"""A threshold that keeps a promised false-positive rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from math import ceil, log, log1p
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError
from ...stats import upper_bound


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What lies above `value` is flagged.

    Of n held-out benign scores `flagged` lie above it; `bound` is the false-positive rate that is
    not exceeded with the given confidence, for inputs like those; fpr: the rate that was wanted.
    classes: the predicted classes that have a threshold of their own, as `by_class` makes them;
    `value` then is for the others, and n, flagged and bound are of all together.
    """

    value: float
    fpr: float
    confidence: float
    n: int
    flagged: int
    bound: float
    classes: Mapping[int, Threshold] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        told = asdict(self)
        classes = {str(label): own for label, own in told.pop("classes").items()}
        return {**told, "classes": classes} if classes else told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Threshold:
        """From what `to_dict` gave."""
        own = {int(label): cls.from_dict(each) for label, each in told.get("classes", {}).items()}
        return cls(**{**told, "classes": own})

    def value_of(self, label: int) -> float:
        """The value that holds for inputs of this predicted class."""
        return self.classes[label].value if label in self.classes else self.value

    def __str__(self) -> str:
        own = f" and {len(self.classes)} classes' own" if self.classes else ""
        return (
            f"{self.value:.6g}{own}: flags at most {100 * self.bound:.2g} % of benign inputs "
            f"({100 * self.confidence:g} % sure, {self.flagged} of {self.n} held-out ones)"
        )


def threshold(scores: ArrayLike, *, fpr: float = 0.01, confidence: float = 0.95) -> Threshold:
    """The lowest threshold with a false-positive rate of at most `fpr`, from benign scores (N,).

    An order statistic: as many scores lie above it as the exact upper bound of their share allows
    (Wilks 1941; Clopper and Pearson 1934), so that over repeated calibrations a share of at least
    `confidence` keeps the rate. The scores must be of inputs that the detector was not fitted on.
    Raises DataError for too few of them, or for ones that are not finite.
    """
    check_promise(fpr, confidence)
    values = np.sort(finite(scores))
    most = most_flagged(len(values), fpr=fpr, confidence=confidence)
    if most < 0:
        raise DataError(
            f"{len(values)} held-out benign inputs cannot show a false-positive rate of "
            f"{100 * fpr:g} % at {100 * confidence:g} % confidence; give at least "
            f"{fewest_benign(fpr=fpr, confidence=confidence)}"
        )
    value = float(values[len(values) - 1 - most])
    flagged = int((values > value).sum())
    return Threshold(
        value=value,
        fpr=fpr,
        confidence=confidence,
        n=len(values),
        flagged=flagged,
        bound=float(upper_bound(flagged, len(values), 1 - confidence)),
    )


def check_promise(fpr: float, confidence: float) -> None:
    """Raise DataError for a rate or a confidence that cannot be promised."""
    if not 0 < fpr < 1 or not 0 < confidence < 1:
        raise DataError(
            f"fpr is {fpr:g} and confidence {confidence:g}; give shares between 0 and 1, such as "
            "0.01 and 0.95"
        )


def finite(scores: ArrayLike) -> NDArray[np.float64]:
    """Benign scores (N,) in float64; raises DataError where some are not finite."""
    values = np.asarray(scores, np.float64).ravel()
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise DataError(
            f"{wrong} of {len(values)} benign scores are not finite; look for inputs that the "
            "model or the detector cannot take"
        )
    return values


@cache
def most_flagged(n: int, *, fpr: float, confidence: float) -> int:
    """How many of n held-out benign inputs may be flagged; -1 if n is too small for the rate.

    The largest m of which the one-sided Clopper-Pearson bound is at most `fpr`.
    """
    least, most = -1, n
    while most - least > 1:
        middle = (least + most) // 2
        if upper_bound(middle, n, 1 - confidence) <= fpr:
            least = middle
        else:
            most = middle
    return least


def fewest_benign(*, fpr: float, confidence: float) -> int:
    """The least number of held-out benign inputs that can promise the rate, with none flagged."""
    return ceil(log(1 - confidence) / log1p(-fpr))
