"""What the trainer asks of a training method."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .._errors import ConfigError
from ..threat import Box, Region

_UNIT = Box(0.0, 1.0)


class Lost(NamedTuple):
    """The mean loss () to be minimised, and the scores (B, K) of the points it was taken at."""

    loss: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a training is, and what holds for all of its steps.

    done: share of all steps that is done, 0 to 1; scale: share of the radius in force, below 1
    while it grows; noise: the source of this step's randomness; domain: bounds of raw input;
    smoothing: share of each label that is spread over all classes.
    """

    done: float
    scale: float
    noise: torch.Generator
    domain: Box = _UNIT
    smoothing: float = 0.0


def check_steps(steps: int, step_size: float | None) -> None:
    """Raise ConfigError for steps, or a step's share of the radius, that lead nowhere."""
    whole = isinstance(steps, int) and not isinstance(steps, bool)
    if not whole or steps < 1:
        raise ConfigError(f"steps is {steps}; give a whole number of at least 1")
    if step_size is not None and not (isfinite(step_size) and step_size > 0):
        raise ConfigError(f"step_size is {step_size}; give a share of the radius above 0")


class Recipe(Protocol):
    """One training method: what it minimises on a batch.

    regions: what it hardens against, empty for none. The net is in train mode when `loss` is asked.
    Points are crafted within `crafting(net)`, and their gradients are taken by `autograd.grad` with
    respect to the input alone.
    """

    @property
    def regions(self) -> tuple[Region, ...]: ...

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost: ...


def check_recipe(recipe: object) -> None:
    """Raise ConfigError for what is no recipe."""
    if isinstance(recipe, type):
        raise ConfigError(
            f"recipe is the class {recipe.__name__}; give one, {recipe.__name__}(...)"
        )
    if not callable(getattr(recipe, "loss", None)) or not hasattr(recipe, "regions"):
        raise ConfigError(
            f"recipe is a {type(recipe).__name__}, without loss and regions; give one of "
            "withstand.harden, such as PGD(region=Linf(0.1))"
        )


@runtime_checkable
class Proving(Recipe, Protocol):
    """A training method whose nets are proven robust, by bounds that it can take itself."""

    def proven(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which samples x (N, ...) with labels y are proven right in the whole region, (N,)."""
        ...


@runtime_checkable
class Withstanding(Recipe, Protocol):
    """A training method whose attacker is in no ball, so that it looks itself at who withstands."""

    def withstands(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which samples x (N, ...) with labels y are right as they are and attacked, (N,)."""
        ...
