"""Several attacks at once: their mean, the worst of them, or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError
from ..threat import L1, Linf, Region
from ._contract import Lost, Moment, Recipe, Withstanding, check_recipe
from ._crafting import crafting
from ._pgd import PGD


class Crafting(Recipe, Protocol):
    """A recipe whose points can be had by themselves."""

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Average:
    """The mean of the recipes' losses on every batch (Tramèr and Boneh 2019, "avg").

    Costs what the recipes cost together.
    """

    recipes: Sequence[Recipe]

    def __post_init__(self) -> None:
        _check(self.recipes)

    @property
    def regions(self) -> tuple[Region, ...]:
        """What they harden against together."""
        return _regions(self.recipes)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """The mean loss; the scores are the mean of theirs."""
        lost = [recipe.loss(net, x, y, at) for recipe in self.recipes]
        return Lost(
            torch.stack([each.loss for each in lost]).mean(),
            torch.stack([each.scores.detach() for each in lost]).mean(0),
        )


@dataclass(frozen=True, kw_only=True)
class Worst:
    """Training on each sample's worst points among those of all recipes (Tramèr and Boneh 2019,
    "max").

    Costs what crafting them all costs, 1 forward for each recipe, and 1 gradient pass.
    """

    recipes: Sequence[Crafting]

    def __post_init__(self) -> None:
        _check(self.recipes)
        for recipe in self.recipes:
            if not hasattr(recipe, "craft"):
                raise ConfigError(
                    f"Worst compares points, and {type(recipe).__name__} crafts none; give recipes "
                    "such as PGD and FGSM, or use Average"
                )

    @property
    def regions(self) -> tuple[Region, ...]:
        """What they harden against together."""
        return _regions(self.recipes)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) of highest cross-entropy; those of the first recipe where equal."""
        made, most = x, torch.full((len(x),), -torch.inf, device=x.device)
        for recipe in self.recipes:
            points = recipe.craft(net, x, y, at)
            with crafting(net), torch.no_grad():
                loss = cross_entropy(net(points), y, reduction="none")
            worse = loss > most
            made = torch.where(worse.reshape(-1, *(1,) * (x.ndim - 1)), points, made)
            most = torch.maximum(most, loss)
        return made

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at those points."""
        scores = net(self.craft(net, x, y, at))
        return Lost(cross_entropy(scores, y, label_smoothing=at.smoothing), scores)


@dataclass(frozen=True, kw_only=True)
class Alternating:
    """One of the recipes for each batch, drawn by chance (Croce and Hein 2022, E-AT).

    shares: how often each is drawn, alike if not given. Costs what one of them costs, in the mean.
    """

    recipes: Sequence[Recipe]
    shares: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check(self.recipes)
        shares = self.shares or [1.0] * len(self.recipes)
        if len(shares) != len(self.recipes) or not all(isfinite(s) and s > 0 for s in shares):
            raise ConfigError(
                f"shares is {shares} for {len(self.recipes)} recipes; give one number above 0 each"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """What they harden against together."""
        return _regions(self.recipes)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """The loss of the recipe that is drawn."""
        return self._drawn(at).loss(net, x, y, at)

    def _drawn(self, at: Moment) -> Recipe:
        shares = self.shares or [1.0] * len(self.recipes)
        weights = torch.tensor(shares, dtype=torch.float64, device=at.noise.device)
        return self.recipes[int(torch.multinomial(weights, 1, generator=at.noise))]


def extreme_norms(*, linf: float, l1: float, steps: int = 10, share: float = 0.5) -> Alternating:
    """Linf and L1 in turn, the extreme norms, at the cost of one (Croce and Hein 2022).

    Made to fine-tune a network that is robust in one norm, in a few epochs; the norms between are
    covered as far as the two balls' convex hull reaches. linf, l1: radii; share: of the batches
    that Linf gets. The paper shifts shares towards the norm that does worse; here they are fixed,
    since a recipe holds nothing between two steps.
    """
    return Alternating(
        recipes=(PGD(region=Linf(linf), steps=steps), PGD(region=L1(l1), steps=steps)),
        shares=(share, 1 - share),
    )


def withstanding(recipe: Recipe) -> list[Withstanding]:
    """The recipe itself, or those inside it, whose attacker is in no ball."""
    if isinstance(recipe, Withstanding):
        return [recipe]
    inside = recipe.recipes if isinstance(recipe, Average | Worst | Alternating) else ()
    return [found for one in inside for found in withstanding(one)]


def _check(recipes: Sequence[Recipe]) -> None:
    if len(recipes) < 2:
        raise ConfigError(f"there are {len(recipes)} recipes; give at least 2, or use the one")
    for recipe in recipes:
        check_recipe(recipe)


def _regions(recipes: Sequence[Recipe]) -> tuple[Region, ...]:
    return tuple(region for recipe in recipes for region in recipe.regions)
