"""What the answers to near copies tell: whether somebody walks towards another class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._watch import Sighting

Array = NDArray[Any]


class Step(NamedTuple):
    """How a query goes on from its near copies.

    flips: how many of them got another class, each as far as it is near. descent: how many queries
    in a row, itself the last, each had a smaller margin than all near copies before it.
    """

    flips: float
    descent: int

    @property
    def score(self) -> float:
        """Both together."""
        return self.flips + self.descent


_NO_STEP = Step(0.0, 0)


def follow(sighting: Sighting, label: int, margin: float) -> Step:
    """Note the answer to a query, and how it goes on from the answers to its near copies.

    margin: between the two highest scores, NaN where there are none. Attacks from labels ask on
    both sides of the border, so that classes flip; attacks from scores go down step by step.
    """
    step = _NO_STEP
    for ring, number, near in sighting.seen:
        found = _NO_STEP
        if len(near.slots):
            found = _step(ring.told[near.slots], near.weights, label, margin)
        ring.tell(number, (label, margin, found.descent))
        if found.score > step.score:
            step = found
    return step


def _step(told: Array, weights: Array, label: int, margin: float) -> Step:
    flips = float(weights[(told[:, 0] != label) & ~np.isnan(told[:, 0])].sum())
    same = told[told[:, 0] == label]
    if not len(same):
        return Step(flips, 0)
    return Step(flips, int(same[:, 2].max()) + bool(margin < same[:, 1].min()))
