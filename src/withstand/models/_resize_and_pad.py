"""Shrunk by a random factor and put at a random place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .._errors import ModelError
from ._median import neighbouring


@dataclass(frozen=True, kw_only=True)
class ResizeAndPad:
    """Random resizing and padding with zeros (Xie et al. 2018), here within the input's own size.

    smallest: the least size, as a share of the input's. For pictures (B, C, H, W) and signals
    (B, C, L), interpolated linearly; ModelError for other shapes. A draw is alike for all rows.
    """

    smallest: float = 0.9
    masks: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ModelError(
                f"ResizeAndPad's smallest is {self.smallest:g}; give a share above 0, at most 1"
            )

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Inputs x (B, C, H, W) or (B, C, L) in 0 to 1, smaller and moved."""
        axes = neighbouring(x, "ResizeAndPad")
        sides = x.shape[-axes:]
        share = rng.uniform(self.smallest, 1)
        small = [max(1, round(share * side)) for side in sides]
        pads: list[int] = []
        # From the last axis on, as F.pad counts.
        for side, now in zip(reversed(sides), reversed(small), strict=True):
            before = int(rng.integers(0, side - now + 1))
            pads += [before, side - now - before]
        mode = "bilinear" if axes == 2 else "linear"
        return F.pad(F.interpolate(x, size=small, mode=mode, align_corners=False), pads)
