"""What attacks on rows of a table share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ._contract import Attack
from ._problem import Problem


@dataclass(frozen=True, kw_only=True)
class TableAttack(Attack):
    """An attack that is made for rows of a table: of every geometry, its lanes are restarts."""

    restarts: int = 1
    norms: ClassVar = ("linf", "l2", "l1", "l0")
    tables: ClassVar = True

    @property
    def lanes(self) -> int:
        """Restarts."""
        return self.restarts


def widths(problem: Problem) -> Tensor:
    """How far each feature (B, F) can go in all; where there is no end, as far as it is from 0."""
    x, lower, upper = (one.flatten(1) for one in (problem.x, problem.lower, problem.upper))
    return torch.where((upper - lower).isfinite(), upper - lower, x.abs().clamp_min(1))
