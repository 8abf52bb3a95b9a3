"""Training under Gaussian noise: what randomised smoothing needs of its model."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ThreatError
from ..threat import Region
from ._contract import Lost, Moment


@dataclass(frozen=True, kw_only=True)
class NoiseAugmented:
    """Cross-entropy under one draw of Gaussian noise (Cohen et al. 2019, section 3.3).

    sigma: in units of raw input, that of the smoothed classifier; noise leaves the domain. It
    hardens against no attacker by itself: certify or evaluate the smoothed classifier. Costs 1
    gradient pass.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not (isfinite(self.sigma) and self.sigma > 0):
            raise ThreatError(f"sigma is {self.sigma:g}; give a finite number above 0")

    @property
    def regions(self) -> tuple[Region, ...]:
        """None."""
        return ()

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at noisy samples, fresh ones each time."""
        noise = torch.empty_like(x).normal_(0, self.sigma, generator=at.noise)
        scores = net(x + noise)
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)
