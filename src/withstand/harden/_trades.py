"""TRADES: accuracy on clean inputs, traded against how far the answer can be moved."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from .._errors import ConfigError
from ..threat import Region
from ._contract import Lost, Moment
from ._crafting import around, crafting, slope

# Share of a random start that the ascent begins with.
_ASIDE = 0.01


def divergence(scores: Tensor, wanted: Tensor) -> Tensor:
    """The Kullback-Leibler divergence () of softmax(scores) (B, K) from a wanted distribution,
    given as logarithms (B, K): summed over classes and samples.

    A mean over classes as well, the default of torch, would weaken it K times.
    """
    total: Tensor = kl_div(scores.log_softmax(1), wanted, log_target=True, reduction="sum")
    return total


@dataclass(frozen=True, kw_only=True)
class TRADES:
    """Cross-entropy at the clean points plus beta times the divergence of the answers at the worst
    points from those at the clean ones (Zhang et al. 2019, eq. 5, beta for 1 / lambda).

    steps, step_size: of the ascent of that divergence (alg. 1); the size is a share of the radius,
    2.5 / steps if not given. Costs steps + 2 gradient passes and 1 forward.
    """

    region: Region
    beta: float = 6.0
    steps: int = 10
    step_size: float | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.beta) and self.beta >= 0) or self.steps < 1:
            raise ConfigError(
                f"beta is {self.beta} and steps {self.steps}; give a finite beta of at least 0 and "
                "at least 1 step"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) that the ascent of the divergence ends at; labels are not used."""
        ball = around(self.region, x, at)
        share = 2.5 / self.steps if self.step_size is None else self.step_size
        # Beside x, since the divergence has no slope there.
        points = torch.lerp(x, ball.start(at.noise), _ASIDE)
        with crafting(net):
            with torch.no_grad():
                clean = net(x).log_softmax(1)
            for _ in range(self.steps):
                points = ball.ascend(points, slope(net, points, clean, divergence), share)
        return points

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Both terms, each a mean over the batch; the scores are those of the crafted points."""
        made = self.craft(net, x, y, at)
        clean, moved = net(x), net(made)
        apart = divergence(moved, clean.log_softmax(1)) / len(x)
        entropy = cross_entropy(clean, y, label_smoothing=at.smoothing)
        return Lost(entropy + self.beta * apart, moved)
