"""Distances to many references by one product of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._errors import ConfigError

MOST = 50_000


def check_references(references: int) -> None:
    """Raise ConfigError for a number of references that no single product should be taken of."""
    if not 1 <= references <= MOST:
        raise ConfigError(f"references is {references}; give 1 to {MOST}")


def spread(n: int, most: int) -> Tensor:
    """At most so many of n rows, evenly spread over them."""
    return torch.arange(n) if n <= most else torch.arange(most) * n // most


def squared(features: Tensor, references: Tensor, lengths: Tensor) -> Tensor:
    """Squared distances (B, R) of features (B, F) to references (R, F), rounded as products are.

    lengths: the references' squared ones (R,).
    """
    found = torch.addmm(lengths, features, references.T, alpha=-2)
    return (found + features.square().sum(1, keepdim=True)).clamp_min(0)


def nearest(features: Tensor, references: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (B, k), nearest first, of features (B, F) to references, and which they are.

    Found by the product, measured by differences: exact and with a slope at any distance.
    """
    with torch.no_grad():
        place = squared(features, references, lengths).topk(k, dim=1, largest=False).indices
    gap = (features[:, None] - references[place]).square().sum(2)
    # The root has no slope at zero, where a reference is met again.
    distance, order = (gap + 1e-12).sqrt().sort(1)
    return distance, place.gather(1, order)
