"""Goals: what counts as success. Tensor methods only, so that this room needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .._errors import ThreatError, one_line

if TYPE_CHECKING:
    from torch import Tensor


class Goal(Protocol):
    """What the attacker wants of the model's answer.

    `decide` turns scores (B, K) into the answer a user would see, `hit` judges the answer, and
    `margin` measures how far the scores are from a hit: positive while the model withstands.
    """

    def decide(self, scores: Tensor) -> Tensor: ...

    def hit(self, answer: Tensor, y: Tensor) -> Tensor: ...

    def margin(self, scores: Tensor, y: Tensor) -> Tensor: ...

    def describe(self) -> str: ...


def lead(scores: Tensor, label: Tensor) -> Tensor:
    """By how much the label's score leads the best other one, (B,)."""
    column = label[:, None]
    best_other = scores.scatter(1, column, -float("inf")).amax(1)
    return scores.gather(1, column)[:, 0] - best_other


@dataclass(frozen=True)
class Untargeted:
    """Any class but the true one."""

    def decide(self, scores: Tensor) -> Tensor:
        return scores.argmax(1)

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        return answer != y

    def margin(self, scores: Tensor, y: Tensor) -> Tensor:
        return lead(scores, y)

    def describe(self) -> str:
        return "any wrong class"


@dataclass(frozen=True)
class Targeted:
    """One class for all samples; a sample that is already of that class is no target."""

    target: int

    def __post_init__(self) -> None:
        told: Any = self.target
        # Numpy's whole numbers are as good as Python's.
        whole = hasattr(told, "__index__") and not isinstance(told, bool)
        if not whole or getattr(told, "ndim", False) or told < 0:
            raise ThreatError(
                f"target is {one_line(repr(self.target), 40)}; give one class for all samples, a "
                "whole number from 0 on"
            )

    def decide(self, scores: Tensor) -> Tensor:
        return scores.argmax(1)

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        return (answer == self.target) & (y != self.target)

    def margin(self, scores: Tensor, y: Tensor) -> Tensor:
        return -lead(scores, y.new_full(y.shape, self.target))

    def describe(self) -> str:
        return f"class {self.target}"


@dataclass(frozen=True)
class MultiLabel:
    """At least `flips` of K labels wrong; y is (B, K) of 0 and 1, a score above 0 means 1."""

    flips: int = 1

    def __post_init__(self) -> None:
        if self.flips < 1:
            raise ThreatError(f"flips is {self.flips}; give at least 1 label")

    def decide(self, scores: Tensor) -> Tensor:
        return scores > 0

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        return (answer != (y > 0)).sum(1) >= self.flips

    def margin(self, scores: Tensor, y: Tensor) -> Tensor:
        right = scores * (2 * (y > 0).to(scores.dtype) - 1)
        return right.topk(self.flips, dim=1, largest=False).values[:, -1]

    def describe(self) -> str:
        return f"at least {self.flips} wrong label(s)"


@dataclass(frozen=True)
class Regression:
    """An output (B,) or (B, 1) off by more than `tolerance`; `direction` is up, down or any."""

    tolerance: float
    direction: str = "any"

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ThreatError(f"tolerance is {self.tolerance}; give at least 0")
        if self.direction not in ("up", "down", "any"):
            raise ThreatError(f"direction is {self.direction!r}; it is up, down or any")

    def decide(self, scores: Tensor) -> Tensor:
        return scores.reshape(len(scores))

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        return self._error(answer, y) > self.tolerance

    def margin(self, scores: Tensor, y: Tensor) -> Tensor:
        return self.tolerance - self._error(self.decide(scores), y)

    def _error(self, answer: Tensor, y: Tensor) -> Tensor:
        error = answer - y
        if self.direction == "any":
            # Unlike that of abs, this slope does not vanish where the answer is exact.
            return error.where(error >= 0, -error)
        return error if self.direction == "up" else -error

    def describe(self) -> str:
        return f"an error above {self.tolerance:g} ({self.direction})"


@dataclass(frozen=True)
class Evading:
    """Another goal reached while a detector stays silent.

    The model is a `models.Detecting`, whose last column is positive while nothing is flagged.
    """

    goal: Goal = field(default_factory=Untargeted)

    def decide(self, scores: Tensor) -> Tensor:
        import torch

        answer = self.goal.decide(scores[:, :-1])
        return torch.stack((answer, (scores[:, -1] > 0).to(answer.dtype)), 1)

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        return self.goal.hit(answer[:, 0], y) & (answer[:, 1] > 0)

    def margin(self, scores: Tensor, y: Tensor) -> Tensor:
        return self.goal.margin(scores[:, :-1], y).maximum(-scores[:, -1])

    def describe(self) -> str:
        return f"{self.goal.describe()}, unseen by the detector"
