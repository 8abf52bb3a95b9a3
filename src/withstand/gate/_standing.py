"""Who still stands before any attack: right by itself, and not fooled by what is known already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Dataset
from ..evaluate import Answers
from ..models import Model, adapt
from ..threat import MultiLabel, Region, Regression, Targeted, Threat

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """One entry for each sample (N, ...): right by itself, fooled by an example shown to it.

    x_adv: that example, x without one; shown: how many examples were shown, forwards: all asked.
    """

    right: Array
    fallen: Array
    x_adv: Array
    shown: int
    forwards: int

    @property
    def rows(self) -> Array:
        """Who is right and was not fooled."""
        return np.flatnonzero(self.right & ~self.fallen)


def standing(
    model: Model,
    data: Dataset,
    threat: Threat,
    known: Sequence[Sequence[Array]],
    batch_size: int = 64,
) -> Standing:
    """Ask about each sample and then about its known examples, until one of them fools.

    known: examples for each of the N samples; each is shown as it is, and as far in its direction
    as the radius allows. Those outside the threat's region do not count. Costs 1 forward for each
    sample and for each example shown.
    """
    x = torch.from_numpy(np.ascontiguousarray(data.x))
    y = torch.from_numpy(np.ascontiguousarray(data.y))
    device = getattr(model, "device", torch.device("cpu"))
    with model.held():
        answers = _answers(model, threat, x[:batch_size].to(device), batch_size)
        right = _right(answers, x.to(device), y.to(device))
        fallen, x_adv, shown = np.zeros(len(x), bool), data.x.copy(), 0
        for turn in range(max((len(examples) for examples in known), default=0)):
            # Where training went on, the boundary has moved past many of the nearest examples.
            for farther in (False, True):
                left = np.flatnonzero(right & ~fallen).tolist()
                rows = np.array([i for i in left if len(known[i]) > turn], np.int64)
                examples = [known[i][turn] for i in rows.tolist()]
                rows, points = _inside(model, threat, data.x, rows, examples, farther)
                if not len(rows):
                    continue
                _, hit = answers.judged(
                    torch.from_numpy(points).to(device), y[torch.from_numpy(rows)].to(device)
                )
                fooled = hit.cpu().numpy()
                fallen[rows[fooled]], x_adv[rows[fooled]] = True, points[fooled]
                shown += len(rows)
    return Standing(right=right, fallen=fallen, x_adv=x_adv, shown=shown, forwards=len(x) + shown)


def _answers(model: Model, threat: Threat, x: Tensor, batch_size: int) -> Answers:
    by_labels = threat.access == "labels" or model.access in ("labels", "none")
    if not by_labels and not isinstance(threat.goal, Regression | MultiLabel):
        model, _ = adapt(model, model.scores(x))
    return Answers(model=model, goal=threat.goal, labels=by_labels, batch=batch_size)


def _right(answers: Answers, x: Tensor, y: Tensor) -> Array:
    raw = answers.raw(x)
    answer = answers.read(raw)
    right = ~answers.goal.hit(answer, y)
    if isinstance(answers.goal, Targeted):
        right &= answer == y
    if not answers.labels:
        # A model that answers with NaN has crashed, which is not right.
        right &= raw.isfinite().flatten(1).all(1)
    return np.asarray(right.cpu().numpy())


def _inside(
    model: Model, threat: Threat, x: Array, rows: Array, examples: list[Array], farther: bool
) -> tuple[Array, Array]:
    """The rows whose example has their shape and lies in the region, and those examples."""
    fits = [i for i, e in enumerate(examples) if (e.shape, e.dtype) == (x.shape[1:], x.dtype)]
    rows, points = rows[fits], [examples[i] for i in fits]
    if not len(rows):
        return rows, x[:0]
    stacked = np.stack(points)
    reach = threat.within(model.domain).take(rows).region
    if farther:
        stacked = _farther(reach, model, x[rows], stacked)
    inside = reach.contains(x[rows], stacked)
    return rows[inside], stacked[inside]


def _farther(reach: Region, model: Model, x: Array, points: Array) -> Array:
    """Points (B, ...) moved away from x, as far as the radius and the domain allow."""
    ball: Any = next(part for part in reach if hasattr(part, "distance"))
    far = np.maximum(ball.distance(x, points), 1e-12)
    # A hair less than the radius, which rounding must not exceed.
    scale = (1 - 1e-5) * np.broadcast_to(ball.eps, far.shape) / far
    moved = x + scale.reshape(-1, *[1] * (x.ndim - 1)) * (points - x)
    lower, upper = model.domain.bounds(x.shape)
    return np.asarray(np.clip(moved, lower, upper), x.dtype)
