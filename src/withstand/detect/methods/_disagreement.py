"""How far the members of an ensemble are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ModelError
from .._contract import Method, Needs, Observation, State
from ._answers import divergence


@dataclass(frozen=True, kw_only=True)
class Disagreement(Method):
    """Mean Kullback-Leibler divergence of an ensemble's members to their mean (Lakshminarayanan et
    al. 2017, equation 3 in probabilities), as a share of the largest that there can be.

    Attacks that were made on one member, or on another model, divide the others. Costs what the
    ensemble's own answer costs, once more. Raises ModelError for a model that is no ensemble.
    """

    needs: ClassVar[Needs] = "scores"
    reference: ClassVar[str] = "Lakshminarayanan et al. 2017"

    @property
    def passes(self) -> float:
        return 1

    @property
    def highest(self) -> float:
        return 1.0

    def fit(self, seen: Observation) -> State:
        if len(seen.members) < 2:
            raise ModelError(
                f"disagreement needs an Ensemble of at least 2 members, the model has "
                f"{len(seen.members)}; join models with models.Ensemble, or use a method that "
                "needs one"
            )
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        members = torch.stack([ask(seen.x) for ask in seen.members])
        return divergence(members) / math.log(len(members))
