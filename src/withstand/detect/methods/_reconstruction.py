"""How far an input lies from what an autoencoder of benign inputs makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import Method, Modality, Needs, Observation, State
from ._answers import divergence
from ._autoencoder import error, learned, rebuilt


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Method):
    """Mean squared error, in standard deviations, of an autoencoder's reconstruction (Meng and Chen
    2017, section 4.2).

    width: channels of its first layer, a quarter of the units for tables; steps: of training, in
    `fit`, with a fixed seed; noise: added while training, in standard deviations. Sees inputs that
    are unlike the benign ones, so large changes. No forward of the model.
    """

    width: int = 16
    steps: int = 1000
    noise: float = 0.1
    seed: int = 0
    needs: ClassVar[Needs] = "input"
    modalities: ClassVar[tuple[Modality, ...]] = ("image", "tabular", "signal")
    reference: ClassVar[str] = "Meng and Chen 2017"

    def __post_init__(self) -> None:
        for name in ("width", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 1")
        if not self.noise >= 0:
            raise ConfigError(f"noise is {self.noise:g}; give 0 or more")

    def fit(self, seen: Observation) -> State:
        return learned(seen.x, width=self.width, steps=self.steps, noise=self.noise, seed=self.seed)

    def score(self, state: State, seen: Observation) -> Tensor:
        return error(state, seen.x, rebuilt(state, seen.x))


@dataclass(frozen=True, kw_only=True)
class ReconstructedAnswer(Reconstruction):
    """Jensen-Shannon divergence of the model's answers to an input and to its reconstruction (Meng
    and Chen 2017, section 4.3).

    temperature: of both answers; high ones show what a sure model would hide. Works only where
    reconstructions of benign inputs keep their class. 1 forward.
    """

    temperature: float = 10.0
    needs: ClassVar[Needs] = "scores"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature:g}; give more than 0")

    @property
    def passes(self) -> float:
        return 1

    @property
    def highest(self) -> float:
        return math.log(2)

    def score(self, state: State, seen: Observation) -> Tensor:
        again = seen.ask(rebuilt(state, seen.x))
        return divergence(torch.stack((seen.scores, again)), self.temperature)
