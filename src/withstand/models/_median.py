"""The median of each neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .._errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Median:
    """Each value becomes the median of the `size` (by `size`) values around it (Xu et al. 2018).

    For pictures (B, C, H, W) and signals (B, C, L); edges are continued. Its gradient is its own:
    that of the value which is the median. Raises ModelError for other shapes.
    """

    size: int = 3
    masks: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise ModelError(f"Median's size is {self.size}; give an odd number, at least 3")

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Inputs x (B, C, H, W) or (B, C, L), filtered."""
        axes = neighbouring(x, "Median")
        reach = self.size // 2
        around = F.pad(x, (reach,) * 2 * axes, mode="replicate")
        for axis in range(x.ndim - axes, x.ndim):
            around = around.unfold(axis, self.size, 1)
        return around.flatten(x.ndim).median(-1).values


def neighbouring(x: Tensor, name: str) -> int:
    """How many last axes of x have neighbours: 2 in pictures, 1 in signals; else ModelError."""
    if x.ndim not in (3, 4):
        raise ModelError(
            f"{name} needs neighbours: pictures (B, C, H, W) or signals (B, C, L); the input has "
            f"{tuple(x.shape)}, so choose BitDepth or Noise"
        )
    return x.ndim - 2
