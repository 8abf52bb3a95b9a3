"""The temperature at which a model's confidence fits how often it is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError

Array = NDArray[np.float64]

_LEAST, _MOST = 1e-3, 1e3
_STEPS = 60


def temperature(scores: Array, labels: NDArray[np.integer]) -> float:
    """What scores (N, K) must be divided by for the least negative log-likelihood of labels (N,).

    Guo et al. (2017), section 4.2. The loss is convex in 1 / T, so its slope, which is the mean of
    the expected score less the true class's, is bisected. Between 0.001 and 1000; the end where all
    answers are right by any margin is 0.001. Raises DataError for scores or labels that do not fit.
    """
    scores, labels = checked(scores, labels)
    low, high = np.log(1 / _MOST), np.log(1 / _LEAST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _slope(scores, labels, np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def log_likelihood(scores: Array, labels: NDArray[np.integer], at: float = 1.0) -> Array:
    """Logarithm of the probability (N,) of each label at a temperature."""
    logs = _log_softmax(scores / at)
    return np.asarray(logs[np.arange(len(labels)), labels])


def checked(scores: Array, labels: NDArray[np.integer]) -> tuple[Array, NDArray[np.integer]]:
    """Scores of at least two classes in float64; raises DataError for what cannot be calibrated."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or len(scores) != len(labels) or not len(scores):
        raise DataError(
            f"scores have shape {scores.shape} and there are {len(labels)} labels; give (N, K) and "
            "one label for each"
        )
    if scores.shape[1] == 1:
        # One logit is the lead of the second class.
        scores = np.concatenate((np.zeros_like(scores), scores), 1)
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, but the model has "
            f"{scores.shape[1]} classes; give labels from 0"
        )
    if not np.isfinite(scores).all():
        raise DataError("scores are not finite; look for inputs that the model cannot take")
    return scores, labels


def _slope(scores: Array, labels: NDArray[np.integer], inverse: float) -> float:
    shares = np.exp(_log_softmax(scores * inverse))
    expected = (shares * scores).sum(1)
    return float((expected - scores[np.arange(len(labels)), labels]).mean())


def _log_softmax(scores: Array) -> Array:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(scores, axis=1))
