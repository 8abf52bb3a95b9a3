"""What a model and its detector say about inputs, and what is usual of benign ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._errors import DataError
from ...data import Dataset
from ...stats import upper_bound
from .._detector import Detector, inputs_of
from ..methods._answers import probabilities

Array = NDArray[Any]

FEWEST = 300
TAIL = 0.01
LOW = 0.05
_BULK = 0.95
_TUPLES = ("knots", "answers", "labels", "anomalies")
_KNOTS = 64
# How sure the reference is of its own figures.
_SURE = 0.99


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """Inputs as a drift watch sees them, each (B,).

    scores: the detector's. confidences: the highest class probability. margins: its lead over the
    second. answers: the predicted class. labels: the true one, where it is known, else -1.
    """

    scores: Array
    confidences: Array
    margins: Array
    answers: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.scores)


def traffic(
    detector: Detector, inputs: Dataset | Tensor, *, labels: Array | None = None
) -> Traffic:
    """What model and detector say about inputs (B, ...); 1 forward, and the method's passes.

    labels: the true classes (B,), where they are known. Raises ModelError for a model without
    scores.
    """
    x = inputs_of(inputs)
    if labels is None and isinstance(inputs, Dataset) and inputs.y.dtype == np.int64:
        labels = inputs.y
    scores, answers = [], []
    with detector.model.held(), torch.no_grad():
        for part in torch.split(x, 256):
            seen = detector.observer(part)
            scores.append(detector.score_seen(seen))
            # A method that looks at the input only has not asked for them.
            told = seen.scores.shape[1] > 0
            answers.append(seen.scores if told else detector.model.scores(part))
    best = probabilities(torch.cat(answers)).topk(2, 1)
    return Traffic(
        scores=torch.cat(scores).double().cpu().numpy(),
        confidences=best.values[:, 0].double().cpu().numpy(),
        margins=(best.values[:, 0] - best.values[:, 1]).double().cpu().numpy(),
        answers=best.indices[:, 0].cpu().numpy(),
        labels=np.full(len(x), -1) if labels is None else np.asarray(labels),
    )


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What is usual of benign inputs, as `usual` finds it once: plain values.

    knots: quantiles of the scores of the bulk, the lower 95 %. tail: what 1 % of the scores exceed.
    low: what 5 % of the margins lie below. centre: the mean confidence. limits: the range of each
    mean that is still usual, by name. answers, labels: the most of each class among the answers,
    and among the true labels where they were known; anomalies: among the answers to the tail, half
    way to all of them at least.
    """

    n: int
    knots: tuple[float, ...]
    tail: float
    low: float
    centre: float
    limits: Mapping[str, tuple[float, float]]
    answers: tuple[float, ...]
    labels: tuple[float, ...]
    anomalies: tuple[float, ...]

    def ranks(self, scores: Array) -> Array:
        """The place (B,) of scores in the bulk, uniform in [0, 1] if usual; NaN beyond it."""
        place = np.interp(scores, self.knots, np.linspace(0, 1, len(self.knots)))
        return np.where(scores > self.knots[-1], np.nan, place)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Usual:
        """From plain values, as dataclasses.asdict gives them and JSON keeps them."""
        limits = {name: (float(a), float(b)) for name, (a, b) in told["limits"].items()}
        lists = {name: tuple(told[name]) for name in _TUPLES}
        return cls(**{**told, **lists, "limits": limits})


def usual(benign: Traffic, *, classes: int, tolerance: float = 0.02) -> Usual:
    """What is usual, from benign inputs that the detector was not fitted to.

    tolerance: the change of a mean rank, a mean confidence or a share of a class that is still
    usual, beyond what the number of inputs leaves open at 99 %; its square for the spread. Raises
    DataError for fewer than 300 inputs, or for classes that there are not.
    """
    n = len(benign)
    if n < FEWEST:
        raise DataError(f"{n} benign inputs do not tell what is usual; give at least {FEWEST}")
    for name, given in (("answers", benign.answers), ("labels", benign.labels)):
        if given.max() >= classes:
            raise DataError(f"{name} reach {given.max()}, but there are {classes} classes")
    bulk = np.sort(benign.scores)[: int(_BULK * n)]
    knots = np.quantile(bulk, np.linspace(0, 1, _KNOTS))
    tail, low = np.quantile(benign.scores, 1 - TAIL), np.quantile(benign.margins, LOW)
    centre = float(benign.confidences.mean())
    usually = np.bincount(benign.answers, minlength=classes) / n
    rare = np.bincount(benign.answers[benign.scores > tail], minlength=classes)
    most = upper_bound(rare, max(rare.sum(), 1), (1 - _SURE) / classes)
    found = Usual(
        n=n,
        knots=tuple(float(knot) for knot in knots),
        tail=float(tail),
        low=float(low),
        centre=centre,
        limits={},
        answers=_most(benign.answers, classes, tolerance),
        labels=_most(benign.labels, classes, tolerance),
        anomalies=tuple(float(share) for share in np.maximum(most, (1 + usually) / 2)),
    )
    ranks = found.ranks(benign.scores)
    spread = (benign.confidences - centre) ** 2
    limits = {
        "bulk": _mean(ranks[~np.isnan(ranks)], tolerance),
        "tail": (0.0, _share(benign.scores > tail)),
        "confidence": _mean(benign.confidences, tolerance),
        "spread": _mean(spread, tolerance**2),
        "low margins": (0.0, _share(benign.margins < low)),
    }
    return Usual(**{**vars(found), "limits": limits})


def _mean(values: Array, tolerance: float) -> tuple[float, float]:
    """The range of a mean that these values leave open, by the normal approximation."""
    z = NormalDist().inv_cdf((1 + _SURE) / 2)
    half = z * float(values.std()) / sqrt(len(values)) + tolerance
    middle = float(values.mean())
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _share(happened: Array) -> float:
    return float(upper_bound(int(happened.sum()), len(happened), 1 - _SURE))


def _most(given: Array, classes: int, tolerance: float) -> tuple[float, ...]:
    known = given[given >= 0]
    if not len(known):
        return ()
    counts = np.bincount(known, minlength=classes)
    # The classes together are wrong no more often than one of them alone would be.
    most = upper_bound(counts, len(known), (1 - _SURE) / classes)
    return tuple(float(min(share + tolerance, 1.0)) for share in most)
