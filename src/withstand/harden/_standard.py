"""Training without an attacker: what the cost of every other recipe is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..threat import Region
from ._contract import Lost, Moment


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Cross-entropy on the samples as they are. Costs 1 gradient pass."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """None."""
        return ()

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at the samples."""
        scores = net(x)
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)
