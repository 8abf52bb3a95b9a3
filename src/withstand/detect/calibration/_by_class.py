"""Thresholds for each predicted class, with a promise for each and one for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ..._errors import DataError
from ...stats import upper_bound
from ._threshold import Threshold, check_promise, fewest_benign, finite, threshold


def by_class(
    scores: ArrayLike, labels: ArrayLike, *, fpr: float = 0.01, confidence: float = 0.95
) -> Threshold:
    """A threshold for each predicted class, from benign scores and predicted classes (N,).

    A class with at least `fewest_benign` held-out inputs gets its own by the rule of `threshold`:
    its own false-positive rate is at most `fpr` with the given confidence. The others share the one
    that `threshold` gives for them together; where they are too few for that, it is the global one,
    raised so that none of them is flagged, and nothing is promised for them alone.

    `bound` is what is promised for all inputs together. A threshold lies at the next score behind
    those that it flags, so that K groups bound the rate as F + K - 1 flagged inputs of one group
    would (the tail of the benign scores is a Poisson process, and the sum of K waiting times is a
    gamma variable). It is below `fpr` where all classes have enough, and may exceed it slightly
    where few others are left. Raises DataError as `threshold` does.
    """
    check_promise(fpr, confidence)
    values, classes = finite(scores), np.asarray(labels).ravel()
    if len(classes) != len(values):
        raise DataError(
            f"{len(values)} scores have {len(classes)} predicted classes; give one for each"
        )
    least = fewest_benign(fpr=fpr, confidence=confidence)
    found, counts = np.unique(classes, return_counts=True)
    own = {
        int(label): threshold(values[classes == label], fpr=fpr, confidence=confidence)
        for label in found[counts >= least]
    }
    rest = values[~np.isin(classes, list(own))]
    whole = threshold(values, fpr=fpr, confidence=confidence)
    if len(rest) >= least:
        value = threshold(rest, fpr=fpr, confidence=confidence).value
    else:
        value = max(whole.value, float(rest.max(initial=-np.inf)))
    flagged = sum(each.flagged for each in own.values()) + int((rest > value).sum())
    groups = len(own) + (len(rest) > 0)
    bound = float(upper_bound(flagged + groups - 1, len(values), 1 - confidence))
    return replace(whole, value=value, flagged=flagged, bound=bound, classes=own)
