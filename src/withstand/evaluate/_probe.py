"""A first look at the model's gradients, which decides how much black-box work is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..models import Model
from ..threat import Goal, Targeted, Untargeted


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was seen on `samples` of the inputs.

    zero_gradients: share whose margin has no gradient at all; saturated: share whose cross-entropy
    has none although the margin has; restless: the same input was answered differently.
    """

    samples: int
    zero_gradients: float
    saturated: float
    restless: bool


def probe(model: Model, goal: Goal, x: Tensor, y: Tensor, clean: Tensor) -> Probe:
    """Look at the gradients at x (B, ...), whose scores (B, K) are known: 2 forwards, 2 backwards.

    Only for models with gradients.
    """

    def margin(scores: Tensor) -> Tensor:
        return -goal.margin(scores, y)

    seen = model.gradient(x, margin)
    zero = _vanishes(seen.gradient)
    saturated = torch.zeros_like(zero)
    if isinstance(goal, Untargeted | Targeted):
        again = model.gradient(x, lambda s: cross_entropy(s, y, reduction="none"))
        saturated = _vanishes(again.gradient) & ~zero
    return Probe(
        samples=len(x),
        zero_gradients=float(zero.float().mean()),
        saturated=float(saturated.float().mean()),
        # Kernels may differ by rounding between batches; noise in a model is much larger.
        restless=not torch.allclose(seen.scores, clean, rtol=1e-3, atol=1e-4),
    )


def _vanishes(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    return (flat == 0).all(1) | ~torch.isfinite(flat).all(1)
