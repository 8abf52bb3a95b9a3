"""How far an input lies from the directions in which benign inputs vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import State
from ._features import OnFeatures, enough


@dataclass(frozen=True, kw_only=True)
class PCAReconstruction(OnFeatures):
    """Distances by the principal components of benign features (Jackson and Mudholkar 1979).

    distance: residual (the squared length of what the components cannot give back, over its benign
    variance), subspace (Hotelling's squared distance among the components), or both, their sum,
    which is twice the negative log-likelihood of probabilistic PCA less a constant (Tipping and
    Bishop 1999, section 3). variance: the share of the variance that the components explain. No
    extra pass.
    """

    distance: Literal["both", "residual", "subspace"] = "both"
    variance: float = 0.95
    reference: ClassVar[str] = "Jackson and Mudholkar 1979; Tipping and Bishop 1999"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance not in ("both", "residual", "subspace"):
            raise ConfigError(f"distance is {self.distance!r}; it is both, residual or subspace")
        if not 0 < self.variance < 1:
            raise ConfigError(f"variance is {self.variance:g}; give a share between 0 and 1")

    def learned(self, features: Tensor, y: Tensor) -> State:
        enough(len(features), 10, "principal components")
        centre = features.double().mean(0)
        gaps = features.double() - centre
        values, vectors = torch.linalg.eigh(gaps.T @ gaps / (len(gaps) - 1))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        total = values.sum()
        kept = 1 + int((values.cumsum(0) < self.variance * total).sum())
        # What never varies has a variance of rounding, so that any move there is far off.
        least = 1e-8 * total.clamp_min(1e-12) / len(values)
        left = values[kept:].mean() if kept < len(values) else least
        return {
            "centre": centre.float(),
            "components": vectors[:, :kept].float(),
            "spread": values[:kept].clamp_min(least).sqrt().float(),
            "left": left.clamp_min(least).float(),
        }

    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        gaps = features - state["centre"]
        places = gaps @ state["components"]
        subspace = (places / state["spread"]).square().sum(1)
        residual = gaps - places @ state["components"].T
        beyond = residual.square().sum(1) / state["left"]
        return {"residual": beyond, "subspace": subspace, "both": beyond + subspace}[self.distance]
