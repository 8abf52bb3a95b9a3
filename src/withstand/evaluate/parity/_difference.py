"""How far apart the answers of two pipelines are."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...stats import Interval, wilson
from ._compare import Comparison, Unit, gap, labels_of

_RESTLESS = 0.5


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far apart two pipelines' answers to n inputs are.

    unit: what was compared; flips: share of labels that differ by more than the tolerance, no data
    for a regression; largest, median: of scores, in the worst and the median row, None for labels;
    spread: the reference's largest score less its smallest, in the median row; residual: root mean
    square, for labels the share that differs; noise: the served pipeline's difference from itself,
    asked again, as a share of the residual.
    """

    n: int
    unit: Unit = "scores"
    flips: Interval = field(default_factory=lambda: wilson(0, 0))
    largest: float | None = None
    median: float | None = None
    spread: float = 0.0
    residual: float = 0.0
    noise: float = 0.0

    @property
    def noisy(self) -> bool:
        """Whether the served pipeline's own noise hides everything else."""
        return self.noise > _RESTLESS


def beyond(difference: Difference, tolerance: float) -> bool:
    """Whether a label flips, or a score differs by more than the tolerance times the spread."""
    apart = difference.largest is not None and difference.largest > tolerance * difference.spread
    return apart or difference.flips.value > 0


def measured(seen: Comparison, mine: Tensor, tolerance: float) -> Difference:
    """The difference between the served answers and the reference's, (N, K) or labels (N,)."""
    gaps = gap(mine, seen.served)
    n, residual = len(gaps), seen.total(gaps)
    labels, others = labels_of(mine), labels_of(seen.served)
    if mine.ndim == 1:
        flips = wilson(int(gaps.sum()), n)
        return Difference(n=n, unit=seen.unit, flips=flips, residual=residual)
    apart = (mine - seen.served).abs().amax(1)
    spread = mine.amax(1) - mine.amin(1)
    if labels is None or others is None:
        # A regression's answers spread over the inputs; the middle of them knows no outliers.
        middle = mine.flatten().quantile(torch.tensor([0.05, 0.95], dtype=mine.dtype))
        spread, flips = middle[1:] - middle[:1], wilson(0, 0)
    else:
        # Rounding may turn a label only where two scores are as good as equal.
        turned = (labels != others) & (apart > tolerance * spread.median())
        flips = wilson(int(turned.sum()), n)
    return Difference(
        n=n,
        unit=seen.unit,
        flips=flips,
        largest=float(apart.max()),
        median=float(apart.median()),
        spread=float(spread.median()),
        residual=residual,
    )
