"""What a defence says of itself: what it was made for, what it costs, and how to attack it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._errors import ModelError
from ..threat import Threat
from ._protocol import Model

View = Callable[[Model], Model]
"""From a served model to one of the same answers whose gradient is of use."""


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """The attack that must be run on a defence.

    told: what it does, in a few words for reports. view: from the model as it is served to the
    one that is attacked in its place, which must give the same answers (BPDA); straight through
    whatever cuts the gradient if not given. draws: over how many draws answers and gradients are
    averaged, where the defence is random (EOT). attacks: settings by the names of attacks that are
    run besides the evaluation's own; APGD of 100 steps where none are given.
    """

    told: str = "attacked straight through (BPDA)"
    view: View | None = None
    draws: int | None = None
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 1:
            raise ModelError(f"draws is {self.draws}; give at least 1, or None")


@dataclass(frozen=True, kw_only=True)
class Defence:
    """A defence's declaration (Carlini et al. 2019, section 2: a claim names its threat model).

    threats: what it was made for, with infinite radii where it has none in mind; empty if it does
    not say. cost_factor: a forward pass with it over one without, None where that is to be
    measured. masks: whether plain attacks find no way through it, so that they overrate it.
    """

    name: str
    threats: tuple[Threat, ...] = ()
    cost_factor: float | None = None
    adaptive: Adaptive = field(default_factory=Adaptive)
    masks: bool = False

    def __post_init__(self) -> None:
        if self.cost_factor is not None and not self.cost_factor > 0:
            raise ModelError(
                f"cost_factor is {self.cost_factor:g}; give more than 0, or None to measure it"
            )
