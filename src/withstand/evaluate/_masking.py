"""Whether a layer stops attacks, or only hides the gradient from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attacks import craft
from ..data import Dataset
from ..models import Defended, Model, adapt
from ..stats import Interval, mcnemar, wilson
from ..threat import L0, Evading, Goal, Targeted, Threat, Untargeted
from ._answers import Answers
from ._cascade import Spend, crafted

_CHANCE, _LEAD, _STUCK = 0.05, 0.01, 0.05
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The same attack without a layer and through it, and how many either fools.

    In a system of the members and this layer only, because others may hide the gradient as well.
    """

    data: Dataset
    threat: Threat
    spend: Spend
    seed: int
    batch: int

    def of(self, alone: Defended, name: str) -> tuple[Interval | None, bool | None]:
        """The share that the layer stops of examples made without it, and whether it masks.

        Of the samples that are right: it masks if more are fooled by examples made without it than
        by those made through it (McNemar's exact test), or if the attack through it has no gradient
        to follow. None where examples cannot be made.
        """
        lacking = alone.without(name)
        if not (craftable(alone.model, self.threat) and craftable(lacking.model, self.threat)):
            return None, None
        model, goal = self._model(alone), fitting(self.threat, alone).goal
        unaware, aware = self._made(lacking), self._made(alone)
        passing, through = self._fooled(model, goal, unaware), self._fooled(model, goal, aware)
        right = ~self._fooled(model, goal)
        more = int((right & passing & ~through).sum())
        fewer = int((right & through & ~passing).sum())
        misled = mcnemar(more, fewer) < _CHANCE and more - fewer > _LEAD * int(right.sum())
        stuck = int((right & self._still(aware) & ~self._still(unaware)).sum())
        masks = misled or stuck > _STUCK * int(right.sum())
        model, goal = self._model(lacking), plain(goal)
        fooling = self._fooled(model, goal, unaware) & ~self._fooled(model, goal)
        return wilson(int((fooling & ~passing).sum()), int(fooling.sum())), masks

    def _made(self, part: Defended) -> Tensor:
        model, threat = self._model(part), fitting(self.threat, part)
        x, y = self._at(model)
        attack = crafted(self.spend, threat, x)[0]
        return craft(attack, model, x, y, threat, seed=self.seed, batch_size=self.batch)

    def _fooled(self, model: Model, goal: Goal, examples: Tensor | None = None) -> Mask:
        """Which samples (N,) examples of them fool, or they themselves."""
        x, y = self._at(model)
        answers = Answers(model=model, goal=goal, labels=False, batch=self.batch)
        with model.held():
            hit = answers.judged(x if examples is None else examples, y)[1]
        return np.asarray(hit.cpu())

    def _still(self, examples: Tensor) -> Mask:
        """Which samples (N,) an attack has left as they were."""
        return np.asarray((self.data.x == examples.cpu().numpy()).reshape(len(examples), -1).all(1))

    def _model(self, part: Defended) -> Model:
        model = part.model
        if not isinstance(fitting(self.threat, part).goal, Untargeted | Targeted):
            return model
        with model.held():
            return adapt(model, model.scores(self._at(model)[0][: self.batch]))[0]

    def _at(self, model: Model) -> tuple[Tensor, Tensor]:
        device = getattr(model, "device", torch.device("cpu"))
        return torch.from_numpy(self.data.x).to(device), torch.from_numpy(self.data.y).to(device)


def fitting(threat: Threat, part: Defended) -> Threat:
    """The threat, which evades a detector where there is one, and only there."""
    goal = plain(threat.goal)
    return replace(threat, goal=goal if part.detector is None else Evading(goal))


def plain(goal: Goal) -> Goal:
    """The goal without a detector."""
    return goal.goal if isinstance(goal, Evading) else goal


def craftable(model: Model, threat: Threat) -> bool:
    """Whether the attacker can make examples on the model that use the whole region."""
    sparse = any(isinstance(part, L0) for part in threat.region)
    return threat.access == model.access == "gradients" and threat.bounded and not sparse
