"""Adversarial training with a single step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError, ThreatError
from ..threat import Box, Frozen, Linf, Mask, Region
from ._contract import Lost, Moment, check_steps
from ._crafting import around, crafting, slope, uniform


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """Training on one step of steepest ascent from a random point (Wong et al. 2020, algorithm 3).

    step_size: share of the radius; random_start: without it the step starts at the sample itself
    (Goodfellow et al. 2015), which overfits to that one step sooner. Costs 2 gradient passes.
    """

    region: Region
    step_size: float = 1.25
    random_start: bool = True

    def __post_init__(self) -> None:
        check_steps(1, self.step_size)

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) that the step ends at."""
        ball = around(self.region, x, at)
        start = ball.start(at.noise) if self.random_start else x
        with crafting(net):
            return ball.ascend(start, slope(net, start, y), self.step_size)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at the crafted points."""
        scores = net(self.craft(net, x, y, at))
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)


@dataclass(frozen=True, kw_only=True)
class NFGSM:
    """Training on one step from much noise, not brought back into the ball (de Jorge et al. 2022).

    noise: its half-width, share of the radius; step_size: share of the radius. Points stay within
    the domain and leave the Linf ball by up to the noise. Costs 2 gradient passes.
    """

    region: Region
    noise: float = 2.0
    step_size: float = 1.0

    def __post_init__(self) -> None:
        check_steps(1, self.step_size)
        if not self.noise >= 0:
            raise ConfigError(f"noise is {self.noise}; give a share of the radius of at least 0")
        if not all(isinstance(part, Linf | Box | Mask | Frozen) for part in self.region):
            raise ThreatError(
                f"NFGSM knows Linf, the region is {self.region.describe()}; use FGSM or PGD there"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) that noise and step end at."""
        # In a ball that has room for both nothing is cut but what leaves the domain.
        room = self.noise + self.step_size
        ball = around(self.region, x, replace(at, scale=room * at.scale))
        spread = self.noise / room * ball.eps
        start = ball.project(torch.add(x, uniform(x, at.noise), alpha=spread))
        with crafting(net):
            return ball.ascend(start, slope(net, start, y), self.step_size / room)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at the crafted points."""
        scores = net(self.craft(net, x, y, at))
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)
