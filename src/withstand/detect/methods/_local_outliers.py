"""How much sparser it is around an input than around its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import State
from ._features import OnFeatures, enough
from ._near import check_references, nearest, spread

# As scikit-learn has it: the density among equal rows is large and not infinite.
_LEAST = 1e-10


@dataclass(frozen=True, kw_only=True)
class LocalOutlierFactor(OnFeatures):
    """The local outlier factor of Breunig et al. (2000, definition 7), about 1 where it is usual.

    The mean local reachability density of the k nearest benign references over the input's own, so
    that each region is held to its own density. references: at most so many benign inputs, evenly
    spread, 50,000 at most; the cost grows with them. No extra pass.
    """

    k: int = 20
    references: int = 10_000
    reference: ClassVar[str] = "Breunig et al. 2000"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; give at least 1")
        check_references(self.references)

    def learned(self, features: Tensor, y: Tensor) -> State:
        enough(len(features), self.k + 2, f"densities among the nearest {self.k}")
        # Centred, since rounding grows with the distance from the origin.
        centre = features.mean(0)
        placed = features[spread(len(features), self.references).to(features.device)] - centre
        if len(placed) < self.k + 1:
            raise ConfigError(f"references is {len(placed)} and k {self.k}; give more references")
        lengths = placed.square().sum(1)
        found = [
            _others(rows, *nearest(placed[rows], placed, lengths, self.k + 1))
            for rows in torch.split(torch.arange(len(placed), device=placed.device), 256)
        ]
        distance, place = (torch.cat(part) for part in zip(*found, strict=True))
        reach = distance[:, -1]
        return {
            "centre": centre,
            "references": placed,
            "lengths": lengths,
            "reach": reach,
            "density": _density(distance, reach[place]),
        }

    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        placed = features - state["centre"]
        distance, place = nearest(placed, state["references"], state["lengths"], self.k)
        return state["density"][place].mean(1) / _density(distance, state["reach"][place])


def _density(distance: Tensor, reach: Tensor) -> Tensor:
    """The local reachability density (B,) of distances (B, k) to neighbours that reach so far."""
    return 1 / (torch.maximum(distance, reach).mean(1) + _LEAST)


def _others(rows: Tensor, distance: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Of k + 1 neighbours (B, k + 1) of the rows themselves, the k that are others."""
    own = place == rows[:, None]
    # Among equal rows a row may not be among its own nearest; then the farthest goes.
    own[:, -1] |= ~own.any(1)
    kept = torch.arange(distance.shape[1] - 1, device=rows.device).expand(len(rows), -1)
    # Gathered, which is cheaper than a selection by a mask.
    kept = kept + (kept >= own.long().argmax(1, keepdim=True))
    return distance.gather(1, kept), place.gather(1, kept)
