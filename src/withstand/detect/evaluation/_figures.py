"""From examples and scores to the figures of a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...models import Model
from ...stats import Interval, bootstrap, clopper_pearson
from .._detector import Detector
from ._attempt import Tried
from ._report import Array, Benign, InputCost, Row, Worst


@dataclass(frozen=True, kw_only=True, eq=False)
class Clean:
    """The samples (N,) without an attack, and the scores of all benign inputs (M,).

    right: answered rightly, and a target for the attacker; wrong: not so; silent: not flagged.
    suspicion: the score's excess over the threshold.
    """

    right: Tensor
    wrong: Tensor
    silent: Tensor
    suspicion: Array

    @property
    def n(self) -> int:
        """How many samples are attacked or are wrong by themselves."""
        return len(self.right)


def auc(benign: Array, scores: Array) -> float:
    """Area under the ROC curve: how often an attacked input scores above a benign one."""
    if not len(benign) or not len(scores):
        return float("nan")
    ordered = np.sort(benign)
    below = np.searchsorted(ordered, scores, "left")
    most = np.searchsorted(ordered, scores, "right")
    return float((below + most).mean() / (2 * len(benign)))


def benign_figures(detector: Detector, suspicion: Array) -> Benign:
    """How many of the benign inputs are flagged, beside the promise."""
    kept = detector.threshold
    assert kept is not None
    flagged = clopper_pearson(int((suspicion > 0).sum()), len(suspicion))
    return Benign(
        flagged=flagged,
        promised=kept.fpr,
        confidence=kept.confidence,
        bound=kept.bound,
        compatible=flagged.low <= kept.fpr,
    )


def row(tried: Tried, clean: Clean) -> Row:
    """The figures of one attack."""
    attempt = tried.attempt
    n = attempt.of
    fooled, unseen = int(tried.fooled.sum()), int(tried.unseen.sum())
    lost = torch.zeros(clean.n, dtype=torch.bool)
    lost[attempt.rows[tried.unseen]] = True
    scores = tried.suspicion[tried.fooled].numpy()
    asked = max(len(attempt.rows), 1)
    return Row(
        name=attempt.name,
        settings={**vars(attempt.attack)},
        knows=attempt.knows,
        kept=attempt.kept,
        radius=attempt.radius,
        norm=attempt.threat.norm,
        counts=attempt.counts,
        fooled=clopper_pearson(fooled, n),
        tpr=clopper_pearson(fooled - unseen, fooled),
        auc=auc(clean.suspicion, scores),
        usr=clopper_pearson(unseen, n),
        robust=clopper_pearson(int((clean.right & clean.silent & ~lost)[:n].sum()), n),
        forwards=float(tried.forwards.sum()) / asked,
        backwards=float(tried.backwards.sum()) / asked,
        cpu_seconds=tried.cpu_seconds,
        rejected=tried.rejected,
        scores=scores,
    )


def union(tried: Sequence[Tried], clean: Clean) -> tuple[Tensor, Tensor]:
    """Which samples (N,) any of the attacks fooled, and which unseen."""
    fooled, unseen = torch.zeros(2, clean.n, dtype=torch.bool)
    for one in tried:
        fooled[one.attempt.rows] |= one.fooled
        unseen[one.attempt.rows] |= one.unseen
    return fooled, unseen


def worst(tried: Sequence[Tried], clean: Clean, radius: float, *, knows: bool) -> Worst:
    """The worst case of several attacks, each of which may be used on each sample."""
    fooled, unseen = union(tried, clean)
    hits, past = int(fooled.sum()), int(unseen.sum())
    missed = int((clean.wrong & clean.silent).sum())
    return Worst(
        radius=radius,
        knows=knows,
        fooled=clopper_pearson(hits, clean.n),
        tpr=clopper_pearson(hits - past, hits),
        usr=clopper_pearson(past, clean.n),
        robust=clopper_pearson(int((clean.right & clean.silent & ~unseen).sum()), clean.n),
        bare_error=clopper_pearson(int(clean.wrong.sum()) + hits, clean.n),
        error=clopper_pearson(missed + past, clean.n),
    )


def effort(bare: Tried | None, aware: Sequence[Tried]) -> Interval | None:
    """Queries for a success past the detector over those for one without it, of the cheapest way.

    From scores alone; at least, where nothing got past. None where nothing got past the model.
    """
    if bare is None or not int(bare.fooled.sum()) or not aware:
        return None
    found = [_ratio(bare, one) for one in aware]
    return min(found, key=lambda ratio: ratio.value)


def _ratio(bare: Tried, one: Tried) -> Interval:
    values = torch.stack(
        [one.forwards, one.unseen, bare.forwards, bare.fooled], 1
    ).double().numpy()  # fmt: skip

    def statistic(rows: Array) -> float:
        spent, past, before, fooled = rows.sum(0)
        return float((spent / max(past, 1)) / (before / max(fooled, 1)))

    return bootstrap(values, statistic)


def input_cost(detector: Detector, x: Tensor, *, batch: int = 256, repeats: int = 7) -> InputCost:
    """CPU time for an input, of the model and of model and detector; the least of `repeats`."""
    many, one = x[torch.arange(batch) % len(x)], x[:1]
    return InputCost(
        batch=batch,
        model_batch=_micros(lambda: _answer(detector.model, many), repeats) / batch,
        batched=_micros(lambda: detector.score(many), repeats) / batch,
        model_single=_micros(lambda: _answer(detector.model, one), 3 * repeats),
        single=_micros(lambda: detector.score(one), 3 * repeats),
        passes=float(detector.method.passes),
    )


def _answer(model: Model, x: Tensor) -> Tensor:
    return model.labels(x) if model.access == "labels" else model.scores(x)


def _micros(call: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return 1e6 * min(spent)
