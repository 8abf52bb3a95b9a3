"""Targeted APGD: one class after the other, the nearest first."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._apgd import APGD
from ._contract import Ask
from ._problem import Problem
from ._targets import candidates, nearest


@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """APGD towards `targets` classes in turn, in MALT's order (Melamed et al. 2024, section 4).

    2 forwards and up to 10 backwards a sample, then as APGD for each target.
    """

    steps: int = 50
    loss: str = "targeted"
    targets: int = 3

    @property
    def lanes(self) -> int:
        """Targets."""
        return self.targets

    @property
    def plan_cost(self) -> tuple[int, int]:
        """The most forwards and backwards that `plan` asks for."""
        return (2, candidates(self.targets) + 1)

    def plan(self, problem: Problem, ask: Ask) -> Tensor | None:
        """The targets (B, lanes) of each sample, -1 beyond the number of its other classes."""
        return nearest(problem, ask, self.targets)
