"""Adversarial weight perturbation: training at the worst weights nearby, for a flatter loss."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .._errors import ConfigError
from ..threat import Region
from ._contract import Lost, Moment, Proving, Recipe


@dataclass(frozen=True, kw_only=True)
class AWP:
    """Any recipe, its loss taken one step uphill in the weights (Wu et al. 2020, alg. 1).

    gamma: how far each layer's weights move, as a share of their length; vectors, such as biases,
    stay. start: share of the training before which the recipe runs as it is. The weights themselves
    are never written: the loss is that of shifted copies, whose gradient is theirs. Adds 1 gradient
    pass; a recipe without `craft` crafts twice.
    """

    recipe: Recipe
    gamma: float = 5e-3
    start: float = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.gamma) and self.gamma >= 0):
            raise ConfigError(f"gamma is {self.gamma}; give a finite share of at least 0")
        if not 0 <= self.start < 1:
            raise ConfigError(f"start is {self.start}; give a share from 0 to below 1")
        if isinstance(self.recipe, Proving):
            raise ConfigError(
                f"AWP cannot move the weights of {type(self.recipe).__name__}, whose loss is over "
                "bounds; give a recipe on points, such as PGD, or train without AWP"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """What the recipe hardens against."""
        return self.recipe.regions

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """The recipe's loss at the shifted weights, at points that were crafted at the present
        ones."""
        if at.done < self.start or self.gamma == 0:
            return self.recipe.loss(net, x, y, at)
        recipe = _crafted(self.recipe, net, x, y, at)
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        # On copies of the buffers, so that batch norm learns from the second pass alone.
        loss = recipe.loss(_With(net, buffers), x, y, at).loss
        return recipe.loss(_With(net, self._uphill(net, loss)), x, y, at)

    def _uphill(self, net: nn.Module, loss: Tensor) -> dict[str, Tensor]:
        weights = {
            name: weight
            for name, weight in net.named_parameters()
            if weight.requires_grad and weight.ndim > 1
        }
        slopes = torch.autograd.grad(
            loss, list(weights.values()), allow_unused=True, materialize_grads=True
        )
        return {
            name: weight
            + self.gamma * (weight.norm() / slope.norm().clamp_min(1e-12)).detach() * slope
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }


class _With(nn.Module):
    """A net that answers with some of its parameters or buffers replaced."""

    def __init__(self, net: nn.Module, replaced: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.net, self.replaced = net, replaced
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = functional_call(self.net, dict(self.replaced), (x,))
        return answer


def _crafted(recipe: Recipe, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Recipe:
    """The recipe with its points made, so that both passes see the same ones."""
    craft = getattr(recipe, "craft", None)
    if craft is None:
        return recipe
    points, made = craft(net, x, y, at), copy(recipe)
    # Frozen recipes are not to be changed; this copy lives for one step.
    object.__setattr__(made, "craft", lambda *_: points)
    return made
