"""How the model's answer holds under noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError
from ...attacks._noise import GOLDEN, mix
from ...certify._noise import draw_keys, gaussian
from .._contract import Method, Modality, Needs, Observation, State
from ._answers import l1, probabilities


@dataclass(frozen=True, kw_only=True)
class NoiseStability(Method):
    """L1 distance of the mean class probabilities under Gaussian noise from those without it.

    sigma: in the units of the input; draws: noisy copies, a forward each. Only for models trained
    with such noise: where it moves benign answers as well, no threshold is left to lie above. The
    noise of an input is a hash of its content and the seed, so that every score can be repeated;
    who knows the seed can look for an input whose draws are lucky. After Cohen et al. (2019), whose
    smoothed answer is the mean.
    """

    sigma: float = 0.1
    draws: int = 8
    seed: int = 0
    needs: ClassVar[Needs] = "scores"
    modalities: ClassVar[tuple[Modality, ...]] = ("image", "tabular", "signal")
    reference: ClassVar[str] = "Cohen et al. 2019"

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"sigma is {self.sigma:g}; give more than 0")
        if self.draws < 1:
            raise ConfigError(f"draws is {self.draws}; give at least 1")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; give a number of at most 63 bits")

    @property
    def passes(self) -> float:
        return self.draws

    @property
    def highest(self) -> float:
        return 2.0

    def fit(self, seen: Observation) -> State:
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        x, keys = seen.x, _content_keys(seen.x)
        total = torch.zeros_like(probabilities(seen.scores))
        for draw in range(self.draws):
            noise = gaussian(draw_keys(keys, torch.full_like(keys, draw), self.seed), x[0].numel())
            total = total + probabilities(seen.ask(x + self.sigma * noise.reshape(x.shape)))
        return l1(probabilities(seen.scores), total / self.draws)


def _content_keys(x: Tensor) -> Tensor:
    """A key (B,) for each row by its values: a sum of hashes of each value with its place."""
    # Zeros of both signs are one value. Sums of whole numbers do not depend on their order.
    bits = (x.detach().float().flatten(1) + 0.0).contiguous().view(torch.int32).long()
    place = torch.arange(1, bits.shape[1] + 1, device=x.device) * GOLDEN
    return mix(bits + place).sum(1)
