"""PGD that stops where it has won, and where it cannot win."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError
from ._contract import Moment
from ._crafting import around, climb, crafting
from ._pgd import PGD


@dataclass(frozen=True, kw_only=True)
class ActivePGD(PGD):
    """PGD that a sample leaves once its outcome is clear, so that the passes go to the others.

    calm: cross-entropy up to which one leaves that half of the steps have not moved, where training
    has next to no slope; 0 for none. extra: steps after which one leaves that is fooled (Zhang et
    al. 2020, alg. 1), half of all where None; the first costs nothing, since its gradient came with
    the answer. Few of them save more and cost robust accuracy, most of all early in a training. The
    last point is kept. Costs at most steps + 1 gradient passes.
    """

    extra: int | None = None
    calm: float = 0.06

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.extra or 0) < 0 or not self.calm >= 0:
            raise ConfigError(
                f"extra is {self.extra} and calm {self.calm}; give at least 0 for each"
            )

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) that each sample's ascent ends at."""
        ball = around(self.region, x, at)
        share = 2.5 / self.steps if self.step_size is None else self.step_size
        points = ball.start(at.noise) if self.random_start else x.clone()
        active = torch.arange(len(x), device=x.device)
        caught = torch.zeros_like(active, dtype=torch.bool)
        extra = max(1, self.steps // 2) if self.extra is None else self.extra
        left = torch.full_like(active, extra)
        with crafting(net):
            for step in range(self.steps):
                scores, gradient = climb(net, points[active], y[active])
                caught[active] |= scores.argmax(1) != y[active]
                left[active] -= caught[active].long()
                going = left[active] >= 0
                ahead = ball.take(active).ascend(points[active], gradient, share)
                points[active[going]] = ahead[going]
                stays = ~caught[active] | (left[active] > 0)
                if 2 * step >= self.steps:
                    entropy = cross_entropy(scores, y[active], reduction="none")
                    stays &= entropy > self.calm
                active = active[stays]
                if not len(active):
                    break
        return points
