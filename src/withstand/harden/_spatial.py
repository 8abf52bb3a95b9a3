"""Training on pictures that are turned and shifted."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError, DataError
from ..models import motions, moved
from ..threat import Region
from ._contract import Lost, Moment
from ._crafting import crafting

# What is looked at of each picture: angles, and shifts down and across.
_ANGLES, _SHIFTS = 7, 3


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Training on the worst of some random turns and shifts of each picture (Engstrom et al. 2019,
    worst-of-k).

    rotation: degrees either way; translation: share of each side either way; fill: what comes in
    from outside. Both limits grow with the radius. The attacker is in no ball: put it beside others
    by `Alternating`, `Average` or `Worst`. Costs `tries` forwards and 1 gradient pass. Raises
    DataError for what is no picture (B, C, H, W).
    """

    rotation: float = 30.0
    translation: float = 0.1
    tries: int = 10
    fill: Literal["border", "zeros"] = "border"

    def __post_init__(self) -> None:
        limits = isfinite(self.rotation) and 0 <= self.rotation <= 180 and 0 <= self.translation < 1
        if not limits or self.tries < 1:
            raise ConfigError(
                f"rotation is {self.rotation}, translation {self.translation} and tries "
                f"{self.tries}; give 0 to 180 degrees, a share from 0 to below 1 and at least 1"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """None: it hardens against no ball."""
        return ()

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, C, H, W) of highest cross-entropy among the tries."""
        each = torch.empty(len(x) * self.tries, 3, device=x.device)
        points = self._moved(x, each.uniform_(-1, 1, generator=at.noise) * at.scale)
        if self.tries > 1:
            with crafting(net), torch.no_grad():
                label = y.repeat_interleave(self.tries)
                loss = cross_entropy(net(points), label, reduction="none")
            worst = loss.reshape(len(x), self.tries).argmax(1)
            points = points[worst + self.tries * torch.arange(len(x), device=x.device)]
        return points

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at those points."""
        scores = net(self.craft(net, x, y, at))
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)

    def withstands(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which samples x (N, ...) are right as they are and on a coarse grid of motions, (N,)."""
        turns, shifts = torch.linspace(-1, 1, _ANGLES), torch.linspace(-1, 1, _SHIFTS)
        grid = torch.cartesian_prod(turns, shifts, shifts).to(x.device) * at.scale
        with crafting(net), torch.no_grad():
            right: Tensor = net(x).argmax(1) == y
            for motion in grid:
                rows = right.nonzero()[:, 0]
                if len(rows):
                    points = self._moved(x[rows], motion.expand(len(rows), 3))
                    right[rows] = net(points).argmax(1) == y[rows]
        return right

    def _moved(self, x: Tensor, shares: Tensor) -> Tensor:
        """Pictures moved by shares (M, 3) of the limits on angle, down and right; equally many, in
        order, of each picture."""
        if x.ndim != 4:
            raise DataError(
                f"Spatial turns pictures (C, H, W); the inputs are {tuple(x.shape[1:])}"
            )
        height, width = x.shape[2:]
        angle, down, right = shares.double().cpu().numpy().T
        motion = motions(
            height,
            width,
            angle=angle * self.rotation,
            right=right * self.translation * width,
            down=down * self.translation * height,
        )
        points = moved(x.repeat_interleave(len(shares) // len(x), 0), motion.to(x), self.fill)
        # Means of values lie between them, but for the last bit.
        low, high = x.amin(), x.amax()
        if self.fill == "zeros":
            low, high = low.clamp_max(0), high.clamp_min(0)
        return points.clamp(low, high)
