"""How far activations lie from those of the nearest class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..._errors import ConfigError, DataError
from .._contract import Method, Needs, Observation, State
from ._tails import edges, plain, rarest, rarities, several_tails


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
        layers = list(seen.activations.values())
        parts = [_fitted(part[~held].double(), y[~held], self.components) for part in layers]
        width = max(means.shape[1] for _, means in parts)
        # All of one width and in one block, so that each step of all layers is one operation.
        blocks = [_padded(part, width) for part, _ in parts]
        state: State = {
            "whitening": torch.block_diag(*blocks),  # type: ignore[no-untyped-call]
            "means": torch.stack([_padded(means, width) for _, means in parts]),
        }
        knots = several_tails(_distances(state, [part[held] for part in layers]).amin(2).T)
        return state | {"scales": knots, "edges": edges(knots)}

    def score(self, state: State, seen: Observation) -> Tensor:
        distances = _distances(state, list(seen.activations.values()))
        if plain(distances) and distances.shape[1] == 1:
            nearest = [min(to_means) for (to_means,) in distances.tolist()]
            return distances.new_tensor([rarest(state["scales"], nearest)])
        return rarities(state["scales"], distances.amin(2), state["edges"]).amax(0)


def _fitted(features: Tensor, y: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """What whitens features (N, F), (F, C), and the class means (K, C) after it."""
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
    return whitening, means @ whitening


def _padded(columns: Tensor, width: int) -> Tensor:
    return nn.functional.pad(columns, (0, width - columns.shape[1])).float()


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


def _distances(state: State, layers: list[Tensor]) -> Tensor:
    """Distances (L, B, K) of each layer's features (B, F) to the means."""
    means = state["means"]
    white = torch.cat(layers, 1) @ state["whitening"]
    # Without the shortcut by products, whose rounding would depend on the rows beside.
    exact = "donot_use_mm_for_euclid_dist"
    white = white.view(-1, len(means), means.shape[2]).transpose(0, 1)
    return torch.cdist(white, means, compute_mode=exact)
