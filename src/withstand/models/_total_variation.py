"""Total-variation minimisation: the flattest input near the one given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError
from ._median import neighbouring


@dataclass(frozen=True, kw_only=True)
class TotalVariation:
    """The minimum of |u - x|^2 / (2 weight) + TV(u), of each channel (Rudin et al. 1992).

    By Chambolle's projection (2004, eq. 9), so many steps; they are differentiated through. A
    defence of Guo et al. (2018), without their random mask. For pictures (B, C, H, W) and signals
    (B, C, L); ModelError for other shapes.
    """

    weight: float = 0.1
    steps: int = 30
    masks: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf") or self.steps < 1:
            raise ModelError(
                f"TotalVariation's weight is {self.weight:g} and its steps {self.steps}; give a "
                "weight above 0 and at least 1 step"
            )

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Inputs x (B, C, H, W) or (B, C, L), flattened."""
        axes = [-1 - axis for axis in range(neighbouring(x, "TotalVariation"))]
        # The dual field p; below 1 / (4 axes) the steps converge (theorem 3.1 has 1 / 8 in 2-D).
        size, field = 1 / (4 * len(axes)), x.new_zeros(len(axes), *x.shape)
        for _ in range(self.steps):
            slope = _slopes(_spread(field, axes) - x / self.weight, axes)
            # The square root has no slope at zero.
            steep = (slope.square().sum(0) + 1e-12).sqrt()
            field = (field + size * slope) / (1 + size * steep)
        return x - self.weight * _spread(field, axes)


def _slopes(u: Tensor, axes: list[int]) -> Tensor:
    """Forward differences along each axis, (axes, ...), zero at the end."""
    return torch.stack(
        [u.diff(dim=axis, append=u.narrow(axis, u.shape[axis] - 1, 1)) for axis in axes]
    )


def _spread(field: Tensor, axes: list[int]) -> Tensor:
    """The divergence, minus the adjoint of `_slopes`."""
    out = torch.zeros_like(field[0])
    for part, axis in zip(field, axes, strict=True):
        inner = part.narrow(axis, 0, part.shape[axis] - 1)
        edge = torch.zeros_like(part.narrow(axis, 0, 1))
        out = out + torch.cat((inner, edge), axis) - torch.cat((edge, inner), axis)
    return out
