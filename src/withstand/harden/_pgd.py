"""Adversarial training with projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..threat import Region
from ._contract import Lost, Moment, check_steps
from ._crafting import around, crafting, slope


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Training on the worst points that gradient ascent finds in the region (Madry et al. 2018, eq.
    2.1).

    step_size: share of the radius, 2.5 / steps if not given. Costs steps + 1 gradient passes.
    """

    region: Region
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        check_steps(self.steps, self.step_size)

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) that the ascent ends at."""
        ball = around(self.region, x, at)
        share = 2.5 / self.steps if self.step_size is None else self.step_size
        points = ball.start(at.noise) if self.random_start else x
        with crafting(net):
            for _ in range(self.steps):
                points = ball.ascend(points, slope(net, points, y), share)
        return points

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at the crafted points."""
        scores = net(self.craft(net, x, y, at))
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)
