"""How far activations lie from those of the nearest class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError, DataError
from .._contract import Method, Needs, Observation, State
from ._tails import rarity, tails


@dataclass(frozen=True, kw_only=True)
class Mahalanobis(Method):
    """Mahalanobis distance of each layer's activations to the nearest class mean (Lee et al. 2018).

    One covariance for all classes, shrunk towards its diagonal as Ledoit and Wolf (2004) say; the
    distances of the layers are put on one scale by their benign quantiles, and the largest counts.
    components: at most so many principal directions of a layer. layers: those to look at by name,
    None for three spread over the network. No extra pass.
    """

    layers: tuple[str, ...] | None = None
    components: int = 128
    needs: ClassVar[Needs] = "activations"
    reference: ClassVar[str] = "Lee et al. 2018"

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ConfigError(f"components is {self.components}; give at least 1")

    def fit(self, seen: Observation) -> State:
        y = seen.scores.argmax(1) if seen.y is None else seen.y
        # The scale is taken from inputs that the means do not know; else it would be too narrow.
        held = torch.arange(len(y)) % 5 == 4
        state: State = {}
        for i, features in enumerate(seen.activations.values()):
            part = _fitted(features[~held].double(), y[~held], self.components)
            state |= {f"{i}.{name}": value.float() for name, value in part.items()}
            state[f"{i}.scale"] = tails(_distance(state, i, features[held]))
        return state

    def score(self, state: State, seen: Observation) -> Tensor:
        columns = [
            rarity(state[f"{i}.scale"], _distance(state, i, features))
            for i, features in enumerate(seen.activations.values())
        ]
        return torch.stack(columns, 1).amax(1)


def _fitted(features: Tensor, y: Tensor, components: int) -> State:
    classes = torch.unique(y)
    if len(features) < 2 * len(classes):
        raise DataError(
            f"{len(features)} benign inputs of {len(classes)} classes are too few for distances to "
            "class means; give at least twice as many as classes, better hundreds of each"
        )
    means = torch.stack([features[y == label].mean(0) for label in classes])
    place = torch.searchsorted(classes, y)
    residuals = features - means[place]
    covariance = shrunk(residuals)
    values, vectors = torch.linalg.eigh(covariance)
    kept = slice(-min(components, len(values)), None)
    whitening = vectors[:, kept] * values[kept].clamp_min(1e-12).rsqrt()
    return {"whitening": whitening, "means": means @ whitening}


def shrunk(residuals: Tensor) -> Tensor:
    """The covariance (F, F) of centred rows (N, F), shrunk towards a multiple of its diagonal.

    The intensity is that of Ledoit and Wolf (2004) for the diagonal as a target.
    """
    from sklearn.covariance import ledoit_wolf

    scale = residuals.square().mean(0).sqrt()
    # A feature that never moves tells nothing, and one that does move there is far off.
    scale = scale.clamp_min(1e-3 * float(scale.max()) + 1e-12)
    correlation, _ = ledoit_wolf((residuals / scale).numpy(), assume_centered=True)
    return torch.from_numpy(correlation) * scale[:, None] * scale


def _distance(state: State, layer: int, features: Tensor) -> Tensor:
    """Distance (B,) of features (B, F) to the nearest mean."""
    white = features @ state[f"{layer}.whitening"]
    # Without the shortcut by products, whose rounding would depend on the rows beside.
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(white, state[f"{layer}.means"], compute_mode=exact).amin(1)
