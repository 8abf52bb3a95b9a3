"""Distances to many references by one product of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._errors import ConfigError

MOST = 50_000
_LEAST_GROUP = 4


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
        # The length of a row's features moves all its distances alike.
        place = _smallest(torch.addmm(lengths, features, references.T, alpha=-2), k)
    gap = (features[:, None] - references[place]).square().sum(2)
    # The root has no slope at zero, where a reference is met again.
    distance, order = (gap + 1e-12).sqrt().sort(1)
    return distance, place.gather(1, order)


def _smallest(values: Tensor, k: int) -> Tensor:
    """Where the k smallest of each row of values (B, R) are, (B, k).

    They are in the k groups of the smallest minima, so that a search of few replaces one of all.
    """
    size = int((values.shape[1] / k) ** 0.5)
    if size < _LEAST_GROUP:
        return values.topk(k, dim=1, largest=False).indices
    groups = values.shape[1] // size
    # A column of each group is next to those of the others, which makes minima cheap.
    grouped = values[:, : size * groups].view(-1, size, groups)
    found = grouped.amin(1).topk(k, dim=1, largest=False).indices
    within = torch.arange(0, size * groups, groups, device=values.device)
    places = (found[:, :, None] + within).flatten(1)
    left = torch.arange(size * groups, values.shape[1], device=values.device)
    places = torch.cat((places, left.expand(len(values), -1)), 1)
    chosen = values.gather(1, places).topk(k, dim=1, largest=False).indices
    return places.gather(1, chosen)
