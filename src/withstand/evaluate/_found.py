"""What an evaluation has found for each sample so far."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..attacks import Ledger, Result, Status


@dataclass(kw_only=True)
class Found:
    """One entry for each sample (N, ...).

    by: the stage that fooled it first, -1 without one; x_adv: the smallest change in the region
    that fools it, x without one; made: the stage that found x_adv, -1 without one; answer: the
    model's to x_adv, where it is known (answered);
    distance: the smallest change at all, 0 where x is wrong itself; unfinished: a budget ended a
    stage, or it found nowhere to begin; first: forwards up to the first success, -1 without one.
    """

    by: Tensor
    x_adv: Tensor
    made: Tensor
    answer: Tensor
    answered: Tensor
    distance: Tensor
    unfinished: Tensor
    forwards: Tensor
    backwards: Tensor
    first: Tensor

    @classmethod
    def nothing(cls, x: Tensor, answer: Tensor, correct: Tensor) -> Found:
        """What is known of x (N, ...) from one clean forward each: answers, and which are right."""
        one = torch.ones(len(x), dtype=torch.long)
        return cls(
            by=-one,
            x_adv=x.clone(),
            made=-one,
            answer=answer.clone(),
            answered=one > 0,
            distance=torch.where(correct, torch.inf, 0.0).double(),
            unfinished=torch.zeros(len(x), dtype=torch.bool),
            forwards=one.clone(),
            backwards=torch.zeros_like(one),
            first=-one,
        )

    @property
    def fooled(self) -> Tensor:
        """Which samples were fooled (N,)."""
        return self.by >= 0

    def ledger(self, index: Tensor) -> Ledger:
        """What was spent on some samples."""
        return Ledger(
            forwards=self.forwards[index],
            backwards=self.backwards[index],
            first_success=self.first[index],
        )

    def content(self) -> dict[str, Tensor]:
        """The entries by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def restored(cls, content: dict[str, Any]) -> Found:
        """From a content that may hold more."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})

    def merge(
        self,
        index: Tensor,
        result: Result,
        inside: Tensor,
        stage: int,
        answer: Tensor | None = None,
    ) -> int:
        """Add what a stage found for some samples, inside the region or not; how many are new.

        answer: the model's answers to the examples, where the stage has kept them.
        """
        success = result.success.cpu()
        fresh = success & inside & ~self.fooled[index]
        where = index[fresh]
        self.by[where] = stage
        self.first[where] = result.ledger.first_success.cpu()[fresh]
        found = torch.where(success, result.distance.cpu(), torch.inf)
        nearer = found < self.distance[index]
        # Of a region with two balls, what lay nearer in the first may have been outside the other.
        closest = (nearer & inside) | fresh
        self.x_adv[index[closest]] = result.x_adv[closest]
        self.made[index[closest]] = stage
        self.answered[index[closest]] = answer is not None
        if answer is not None:
            self.answer[index[closest]] = answer[closest]
        self.distance[index] = torch.minimum(self.distance[index], found)
        self.forwards[index] = result.ledger.forwards.cpu()
        self.backwards[index] = result.ledger.backwards.cpu()
        return len(where)

    def replace(self, index: Tensor, result: Result, good: Tensor, stage: int) -> None:
        """Put other examples in the place of those of some samples, where they are good."""
        where = index[good]
        self.x_adv[where] = result.x_adv[good]
        self.made[where], self.answered[where] = stage, False
        self.distance[where] = result.distance.cpu()[good].to(self.distance.dtype)
        self.forwards[index] = result.ledger.forwards.cpu()
        self.backwards[index] = result.ledger.backwards.cpu()

    def cut_short(self, index: Tensor, result: Result, limit: int | None) -> None:
        """Note whom our budget ended, or who could not be begun with.

        Running out of the attacker's own queries is no such end.
        """
        cut, unbegun = (
            torch.tensor([status == wanted for status in result.status])
            for wanted in (Status.BUDGET, Status.NO_START)
        )
        self.unfinished[index] |= unbegun | cut & (self.forwards[index] < (limit or torch.inf))
