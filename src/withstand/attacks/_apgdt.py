"""Targeted APGD: one class after the other, the nearest first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..threat import Untargeted
from ._apgd import APGD
from ._contract import Ask
from ._problem import Problem


@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """APGD towards `targets` classes in turn, in MALT's order (Melamed et al. 2024, section 4).

    Classes are ranked by how near their boundary looks to first order: by the lead of the true
    class over the length of its gradient. Candidates are the 3 * targets, at least 9, with the
    highest scores. 2 forwards and up to 10 backwards a sample, then as APGD for each target.
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
        return (2, self._candidates + 1)

    @property
    def _candidates(self) -> int:
        return max(9, 3 * self.targets)

    def plan(self, problem: Problem, ask: Ask) -> Tensor | None:
        """The targets (B, lanes) of each sample, -1 beyond the number of its other classes."""
        if not isinstance(problem.goal, Untargeted):
            return None
        scores, label = ask.scores(problem), problem.y[:, None]
        others = scores.scatter(1, label, -torch.inf)
        count = min(scores.shape[1] - 1, self._candidates)
        candidates = others.topk(count, dim=1).indices
        gradients = ask.jacobian(problem, torch.cat((label, candidates), 1)).flatten(2)
        slope = (gradients[:, 1:] - gradients[:, :1]).norm(dim=2)
        lead = scores.gather(1, label) - others.gather(1, candidates)
        # Gradients may vanish; then the order is that of the scores.
        order = (lead / slope.clamp_min(1e-12)).argsort(dim=1, stable=True)
        return candidates.gather(1, order)[:, : self.targets]
