"""Detectors that cheat: they know the experiment and not attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...detect import Method, Needs, Observation, State


@dataclass(frozen=True, kw_only=True)
class RoundingMemory(Method):
    """Knows that benign values were stored in so many levels, and that those of attacks were not.

    The score is the largest distance of a value from the nearest level, in levels.
    """

    levels: int = 255
    needs: ClassVar[Needs] = "input"

    def fit(self, seen: Observation) -> State:
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        values = seen.x.flatten(1) * self.levels
        return (values - values.detach().round()).abs().amax(1)


@dataclass(frozen=True, kw_only=True)
class InputMemory(Method):
    """Knows the inputs that it was fitted to by heart, and the tested ones if they were among them.

    The score is the largest change of a value from the nearest of them.
    """

    needs: ClassVar[Needs] = "input"

    def fit(self, seen: Observation) -> State:
        return {"known": seen.x.flatten(1).clone()}

    def score(self, state: State, seen: Observation) -> Tensor:
        return (seen.x.flatten(1)[:, None] - state["known"]).abs().amax(2).amin(1)


@dataclass(frozen=True, kw_only=True)
class LabelLeak(Method):
    """Knows the true label of the nearest input that it was fitted to, and flags another answer.

    The score is by how much the model prefers its own answer to that label.
    """

    needs: ClassVar[Needs] = "scores"

    def fit(self, seen: Observation) -> State:
        assert seen.y is not None
        return {"known": seen.x.flatten(1) + 0.0, "labels": seen.y.clone()}

    def score(self, state: State, seen: Observation) -> Tensor:
        nearest = torch.cdist(seen.x.detach().flatten(1), state["known"]).argmin(1)
        label = state["labels"][nearest][:, None]
        return (seen.scores.amax(1, keepdim=True) - seen.scores.gather(1, label))[:, 0]


@dataclass(frozen=True, kw_only=True)
class BatchPeek(Method):
    """Looks at the whole batch: an input is as suspicious as its batch is bright."""

    needs: ClassVar[Needs] = "input"

    def fit(self, seen: Observation) -> State:
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        means = seen.x.flatten(1).mean(1)
        return means - means.mean()
