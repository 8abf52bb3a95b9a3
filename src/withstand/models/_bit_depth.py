"""Fewer grey levels, the simplest of feature squeezers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from .._errors import ModelError
from ._jpeg import rounded


@dataclass(frozen=True, kw_only=True)
class BitDepth:
    """Every feature in 0 to 1 rounded to 2^bits levels (Xu et al. 2018, section 4.1).

    For inputs of any shape (B, ...). Rounding has the gradient of the identity (straight through).
    """

    bits: int = 4
    masks: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ModelError(f"BitDepth's bits is {self.bits}; give 1 to 16")

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Inputs x (B, ...) on the levels."""
        steps = (1 << self.bits) - 1
        return rounded(steps * x) / steps
