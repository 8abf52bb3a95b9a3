"""The contract between a detection method and what runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

Needs = Literal["input", "scores", "activations", "gradients"]
NEEDS: tuple[Needs, ...] = ("input", "scores", "activations", "gradients")
"""What a method must be shown, each with what is before it."""

Modality = Literal["image", "tabular", "signal", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "tabular", "signal", "text")

State = dict[str, Tensor]
"""What a method has learned: tensors by name, which is all that is saved."""

Counted = Callable[[int, int], None]
"""Told how many inputs are done, and of how many."""

Ask = Callable[[Tensor], Tensor]
"""The model's scores (B, K) of raw input (B, ...), with the graph where there is one; 1 forward."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What a detector is shown of a batch, made by one forward for all methods together.

    x: raw input (B, ...). scores: (B, K), and (B, 0) where no method needs them. activations: means
    over positions (B, F) by layer, in the order of the network. ask: for other inputs than x.
    members: each member's own scores, where the model is an ensemble. y: true labels (B,), while
    fitting where they are known. look: what is seen of other inputs; 1 forward.
    """

    x: Tensor
    scores: Tensor
    ask: Ask
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[Ask, ...] = ()
    y: Tensor | None = None
    look: Callable[[Tensor], Observation] | None = None


class Method(ABC):
    """Hyper-parameters in a frozen dataclass, and pure functions on an explicit state.

    needs: the least that it must be shown. passes: forwards beyond the model's own for one input.
    modalities: what it makes sense for. reference: the paper. highest: the end of the score's
    range, None if it has none; a threshold there would never flag. attack_aware: fitted to
    examples of known attacks, so that it says less about others.
    """

    needs: ClassVar[Needs]
    modalities: ClassVar[tuple[Modality, ...]] = MODALITIES
    reference: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True
    attack_aware: ClassVar[bool] = False

    @property
    def passes(self) -> float:
        """Forwards beyond the model's own for one input; a backward counts as one."""
        return 0

    @property
    def layers(self) -> tuple[str, ...] | None:
        """The layers that are looked at, None for the default ones."""
        return ()

    def at(self, layers: tuple[str, ...]) -> Method:
        """The method with these layers if it names none, so that it finds its own among others."""
        return replace(cast(Any, self), layers=layers) if self.layers is None else self

    @property
    def highest(self) -> float | None:
        """The largest score that there can be, None if there is no end."""
        return None

    @abstractmethod
    def fit(self, seen: Observation) -> State:
        """What is learned from all benign inputs; raises DataError for too few of them."""

    @abstractmethod
    def score(self, state: State, seen: Observation) -> Tensor:
        """Suspicion (B,), higher is more suspicious, each row's by itself alone.

        Differentiable with respect to `seen.x`, else `differentiable` is False.
        """
