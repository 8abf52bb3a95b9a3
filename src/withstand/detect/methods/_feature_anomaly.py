"""How rare each feature's value is among benign inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import Method, Modality, Needs, Observation, State
from ._features import enough
from ._tails import rarities, several_tails


@dataclass(frozen=True, kw_only=True)
class FeatureAnomaly(Method):
    """How rare single features are: -log of the share of benign inputs that are as far out.

    Of the tail in which a value is rarer, as ECOD has it (Li et al. 2022, equations 5 and 6). by:
    sum over the features, or max, the rarest one. What is common in every feature alone and odd
    only together is not seen. `by_feature` tells which feature it was. Model-free.
    """

    by: Literal["sum", "max"] = "sum"
    needs: ClassVar[Needs] = "input"
    modalities: ClassVar[tuple[Modality, ...]] = ("tabular",)
    reference: ClassVar[str] = "Li et al. 2022"

    def __post_init__(self) -> None:
        if self.by not in ("sum", "max"):
            raise ConfigError(f"by is {self.by!r}; it is sum or max")

    def fit(self, seen: Observation) -> State:
        x = seen.x.flatten(1).double()
        enough(len(x), 10, "tails")
        return {"upper": several_tails(x), "lower": several_tails(-x)}

    def score(self, state: State, seen: Observation) -> Tensor:
        rare = self.by_feature(state, seen.x)
        return rare.sum(1) if self.by == "sum" else rare.amax(1)

    def by_feature(self, state: State, x: Tensor) -> Tensor:
        """The rarity (B, F) of each feature of x (B, ...) in the tail where it is rarer."""
        x = x.flatten(1).T
        tails = torch.maximum(rarities(state["lower"], -x), rarities(state["upper"], x)).T
        # A share is at most 1, and what is common in one feature must not excuse another.
        return tails.clamp_min(0)
