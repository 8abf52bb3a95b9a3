"""Defensive distillation, declared: logits so large that cross-entropy has no gradient."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError
from ..threat import L0, L2, Access, Linf, Threat
from ._defence import Adaptive, Defence
from ._protocol import Gradient, Model, Objective
from ._torch import device_of


class Tempered:
    """A model whose scores are divided by a temperature: the same answers, other losses."""

    def __init__(self, model: Model, temperature: float) -> None:
        if not 0 < temperature < np.inf:
            raise ModelError(f"temperature is {temperature:g}; give a finite number above 0")
        self.model, self.temperature = model, temperature
        self.domain = model.domain
        self.access: Access = model.access

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def scores(self, x: Tensor) -> Tensor:
        """Cooler scores (B, K) of raw input x (B, ...); 1 forward."""
        return self.model.scores(x) / self.temperature

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return self.model.labels(x)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective of the cooler scores and its gradient; 1 forward and 1 backward."""
        seen = self.model.gradient(x, lambda scores: objective(scores / self.temperature))
        return seen._replace(scores=seen.scores / self.temperature)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Cooler scores (B, K) and the gradients (B, J, ...) of chosen ones; J backwards."""
        scores, gradients = self.model.jacobian(x, outputs)
        return scores / self.temperature, gradients / self.temperature

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()


def distilled(temperature: float = 100.0) -> Defence:
    """The declaration of a network distilled at a temperature (Papernot et al. 2016).

    It masks: trained at the temperature and used at 1, its logits are so far apart that plain
    cross-entropy has no gradient (Carlini and Wagner 2017, section IV). It is attacked at its
    temperature again.
    """
    unaware = tuple(Threat(region=ball(np.inf), access="none") for ball in (L0, L2, Linf))
    return Defence(
        name=f"distilled (temperature {temperature:g})",
        threats=unaware,
        cost_factor=1.0,
        masks=True,
        adaptive=Adaptive(
            told=f"scores divided by the temperature {temperature:g}",
            view=lambda model: Tempered(model, temperature),
        ),
    )
