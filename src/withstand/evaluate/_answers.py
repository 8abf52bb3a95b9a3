"""What a model's users see of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import Model
from ..threat import Goal


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of a model, asked for labels or for scores, in batches; 1 forward for each."""

    model: Model
    goal: Goal
    labels: bool
    batch: int

    def raw(self, x: Tensor) -> Tensor:
        """Labels (N,) or scores (N, K) at x (N, ...)."""
        ask = self.model.labels if self.labels else self.model.scores
        return torch.cat([ask(part) for part in torch.split(x, self.batch)])

    def read(self, raw: Tensor) -> Tensor:
        """The answers (N, ...) that users make of them."""
        return raw if self.labels else self.goal.decide(raw)

    def judged(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The answers at x (N, ...), and which of them reach the goal (N,)."""
        raw = self.raw(x)
        answer = self.read(raw)
        hit = self.goal.hit(answer, y)
        # A model that answers with NaN has crashed; nobody was fooled.
        return answer, hit if self.labels else hit & raw.isfinite().all(1)
