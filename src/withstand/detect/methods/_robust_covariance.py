"""How far features lie from the centre that most benign inputs agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import State
from ._fast_mcd import fast_mcd
from ._features import OnFeatures, enough

_FLOOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class RobustCovariance(OnFeatures):
    """Squared Mahalanobis distance by the minimum covariance determinant (Rousseeuw 1984).

    Found by the FastMCD of Rousseeuw and Van Driessen (1999): mean and covariance of the share of
    inputs that are closest together, so that odd ones among those that were taken for benign do not
    widen it. support: that share, None for about a half. No extra pass.
    """

    support: float | None = None
    seed: int = 0
    reference: ClassVar[str] = "Rousseeuw and Van Driessen 1999"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.support is not None and not 0.5 <= self.support <= 1:
            raise ConfigError(
                f"support is {self.support:g}; give 0.5 to 1, or null for about a half"
            )

    def learned(self, features: Tensor, y: Tensor) -> State:
        enough(len(features), 2 * features.shape[1] + 2, "a robust covariance of these features")
        rows = features.detach().double().cpu()
        centre = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - centre).T @ (rows - centre) / len(rows))
        # What never varies has a variance of rounding, so that any move there is far off.
        least = 1e-8 * values.sum().clamp_min(1e-12) / len(values)
        whitening = vectors * values.clamp_min(least).rsqrt()
        moving = values > least
        if moving.any():
            white = (rows - centre) @ whitening[:, moving]
            location, covariance = fast_mcd(white.numpy(), self.support, self.seed)
            # Directions in which the closest do not vary have a floor below.
            inner, axes = torch.linalg.eigh(torch.from_numpy(covariance))
            inverse = torch.linalg.pinv(whitening[:, moving])
            centre = centre + torch.from_numpy(location) @ inverse
            most = axes * inner.clamp_min(_FLOOR * float(inner.max())).rsqrt()
            whitening = torch.cat((whitening[:, moving] @ most, whitening[:, ~moving]), 1)
        learned = {"centre": centre.float(), "whitening": whitening.float()}
        return {name: value.to(features.device) for name, value in learned.items()}

    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        return ((features - state["centre"]) @ state["whitening"]).square().sum(1)
