"""How far a model's confidence can be believed, before and after temperature scaling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..._errors import DataError
from ...data import Dataset
from ...evaluate import Chart, Curve, Point, check_writable, draw, render, write
from ...models import Model
from ...stats import Interval, bootstrap, wilson
from ._temperature import checked, log_likelihood, temperature

Array = NDArray[Any]

_BINS = 15
_FEWEST = 100
_DRAWS = 500
_DIAGONAL = 400


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Inputs of similar confidence: from low to high, its mean, and the accuracy among them."""

    low: float
    high: float
    confidence: float
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Confidences:
    """How confidence and accuracy agree at one temperature, on inputs that it was not fitted to.

    error: the expected calibration error of equally full bins, with its bootstrap interval; both
    lean upward, so that they are to be held against chance: what it would be on average if the
    confidence were exactly right. loss: the mean negative log-likelihood.
    """

    temperature: float
    error: Interval
    chance: float
    loss: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A model's confidence as it is, and at the temperature that was fitted on other inputs."""

    before: Confidences
    after: Confidences
    fitted_on: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "temperature": self.after.temperature,
            "fitted_on": self.fitted_on,
            "before": _told(self.before),
            "after": _told(self.after),
        }

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Write reliability.json and reliability.html; raises OutputError."""
        folder = check_writable(folder)
        page = render(
            "detect/calibration/reliability.html.j2",
            parts=[
                (title, words(part), _chart(part))
                for title, part in (("As it is", self.before), ("Scaled", self.after))
            ],
            headline=f"temperature {self.after.temperature:.3g}, fitted on {self.fitted_on:,} "
            f"inputs and judged on {self.after.error.n:,} others",
        )
        contents = {"reliability.json": self.to_json(), "reliability.html": page}
        return [write(folder / name, text.encode()) for name, text in contents.items()]

    def __str__(self) -> str:
        return (
            f"temperature {self.after.temperature:.3g}; before: {words(self.before)}; after: "
            f"{words(self.after)}"
        )


def reliability(model: Model, data: Dataset, *, bins: int = _BINS, seed: int = 0) -> Reliability:
    """Fit a temperature on one random half of held-out data, and judge it on the other half.

    Serve it as `models.Tempered(model, temperature)`: the answers stay the same. Raises DataError
    for fewer than 200 inputs or data without classes, ModelError for a model without scores.
    """
    if data.y.dtype != np.int64:
        raise DataError("the labels are no classes; give a classifier's data")
    if len(data) < 2 * _FEWEST:
        raise DataError(
            f"{len(data)} inputs do not tell how reliable confidence is; give at least "
            f"{2 * _FEWEST} that the model was not trained on"
        )
    with model.held(), torch.no_grad():
        parts = [model.scores(part) for part in torch.split(torch.from_numpy(data.x), 256)]
    scores, labels = checked(torch.cat(parts).double().cpu().numpy(), data.y)
    order = np.random.default_rng(seed).permutation(len(data))
    half, rest = np.split(order, [len(data) // 2])
    fitted = temperature(scores[half], labels[half])
    before, after = (
        confidences(scores[rest], labels[rest], at=at, bins=bins, seed=seed) for at in (1.0, fitted)
    )
    return Reliability(before=before, after=after, fitted_on=len(half))


def confidences(
    scores: Array, labels: Array, *, at: float = 1.0, bins: int = _BINS, seed: int = 0
) -> Confidences:
    """How confidence and accuracy agree for scores (N, K) and labels (N,) at a temperature."""
    scores, labels = checked(scores, labels)
    if not 1 <= bins <= len(labels):
        raise DataError(f"bins is {bins}; give 1 to {len(labels)}")
    shares = torch.from_numpy(scores / at).softmax(1).numpy()
    best, right = shares.max(1), shares.argmax(1) == labels
    rng = np.random.default_rng(seed)
    drawn = [
        calibration_error(best, rng.random(len(best)) < best, bins=bins) for _ in range(_DRAWS)
    ]
    error = bootstrap(
        np.stack((best, right), 1),
        lambda rows: calibration_error(rows[:, 0], rows[:, 1], bins=bins),
        draws=_DRAWS,
        seed=seed,
    )
    return Confidences(
        temperature=at,
        error=error,
        chance=float(np.mean(drawn)),
        loss=float(-log_likelihood(scores, labels, at).mean()),
        bins=tuple(_bin(best[part], right[part]) for part in _parts(best, bins)),
    )


def calibration_error(confidence: Array, right: Array, *, bins: int = _BINS) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy, (N,) each.

    Naeini et al. (2015), with equally full bins (Nguyen and O'Connor 2015), since most of a model's
    confidences are near 1.
    """
    gaps = [abs(float((confidence[p] - right[p]).sum())) for p in _parts(confidence, bins)]
    return sum(gaps) / len(confidence)


def words(found: Confidences) -> str:
    """The error in a sentence."""
    gap, chance = 100 * found.error.value, 100 * found.chance
    return (
        f"confidence is off by {gap:.2g} points [{100 * found.error.low:.2g}, "
        f"{100 * found.error.high:.2g}] on average, {chance:.2g} would be chance; loss "
        f"{found.loss:.3g}"
    )


def _parts(confidence: Array, bins: int) -> list[Array]:
    return np.array_split(np.argsort(confidence, kind="stable"), bins)


def _bin(confidence: Array, right: Array) -> Bin:
    return Bin(
        low=float(confidence.min()),
        high=float(confidence.max()),
        confidence=float(confidence.mean()),
        accuracy=wilson(int(right.sum()), len(right)),
    )


def _chart(found: Confidences) -> Chart:
    steps = [i / _DIAGONAL for i in range(_DIAGONAL + 1)]
    diagonal = Curve(name="exactly right", points=[Point(at, at) for at in steps], style="rest")
    points = [
        Point(at, each.accuracy.value, each.accuracy.low, each.accuracy.high)
        for each in found.bins
        for at in (each.low, each.high)
    ]
    return draw([Curve(name="accuracy", points=points, style="s0"), diagonal])


def _told(found: Confidences) -> dict[str, Any]:
    return {
        "temperature": found.temperature,
        "error": found.error.to_dict(),
        "chance": found.chance,
        "loss": found.loss,
        "bins": [
            {
                "low": each.low,
                "high": each.high,
                "confidence": each.confidence,
                "accuracy": each.accuracy.to_dict(),
            }
            for each in found.bins
        ],
    }
