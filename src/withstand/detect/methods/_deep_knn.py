"""Whether the nearest benign inputs, layer by layer, are of the class that the model answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..._errors import ConfigError
from .._contract import Method, Needs, Observation, State
from ._answers import two
from ._features import enough
from ._near import check_references, nearest, spread
from ._tails import rarity, tails


@dataclass(frozen=True, kw_only=True)
class DeepKNN(Method):
    """Deep k-nearest neighbours (Papernot and McDaniel 2018, algorithm 1): -log of the credibility.

    Nonconformity (equation 1) counts the neighbours of another class than the one in question over
    all layers, k by cosine in each; credibility is its conformal p-value among held-out benign
    inputs. The class in question is the model's own answer, where the paper takes the most credible
    one: it is the answer that is doubted. How far the neighbours are breaks ties and gives
    attackers a slope. Labels are the true ones where they are known, else the model's answers. No
    extra pass.
    """

    layers: tuple[str, ...] | None = None
    k: int = 50
    references: int = 10_000
    needs: ClassVar[Needs] = "activations"
    reference: ClassVar[str] = "Papernot and McDaniel 2018"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; give at least 1")
        check_references(self.references)

    def fit(self, seen: Observation) -> State:
        y = two(seen.scores).argmax(1) if seen.y is None else seen.y
        held = torch.arange(len(y), device=y.device) % 5 == 4
        enough(len(y), 5 * self.k // 4 + 2, f"{self.k} neighbours, with a fifth held out")
        rows = spread(len(y) - int(held.sum()), self.references).to(y.device)
        state: State = {"y": y[~held][rows]}
        for i, features in enumerate(seen.activations.values()):
            references = normalize(features[~held][rows], dim=1)
            # Centred, since rounding grows with the distance from the origin.
            state[f"{i}.centre"] = references.mean(0)
            placed = references - state[f"{i}.centre"]
            state |= {f"{i}.references": placed, f"{i}.lengths": placed.square().sum(1)}
        known = [features[held] for features in seen.activations.values()]
        return state | {"scale": tails(self._nonconformity(state, known, y[held]))}

    def score(self, state: State, seen: Observation) -> Tensor:
        answers = two(seen.scores).argmax(1)
        found = self._nonconformity(state, list(seen.activations.values()), answers)
        return rarity(state["scale"], found)

    def _nonconformity(self, state: State, layers: list[Tensor], y: Tensor) -> Tensor:
        others: list[Tensor] = []
        far: list[Tensor] = []
        for i, features in enumerate(layers):
            placed = normalize(features, dim=1) - state[f"{i}.centre"]
            known = state[f"{i}.references"], state[f"{i}.lengths"]
            distance, place = nearest(placed, *known, self.k)
            others.append((state["y"][place] != y[:, None]).sum(1))
            # Two rows of length 1 are at most 2 apart, so that their mean breaks ties only.
            far.append(distance.mean(1) / 2)
        return torch.stack(others, 1).sum(1) + 0.99 * torch.stack(far, 1).mean(1)
