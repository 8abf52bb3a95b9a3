"""What the engine asks of any model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ..threat import Access, Box

Objective = Callable[[Tensor], Tensor]
"""From scores (B, K) to one value for each row (B,), to be maximised."""


class Gradient(NamedTuple):
    """What one forward and backward gives: scores (B, K), values (B,), gradient (B, ...)."""

    scores: Tensor
    values: Tensor
    gradient: Tensor


@runtime_checkable
class Model(Protocol):
    """A model as the attacker meets it: raw input in, preprocessing inside.

    A model answers `labels` where its access is labels, `scores` where it is scores, and
    `gradient` and `jacobian` besides where it is gradients. `held` is open while attacking:
    it puts the model into the state it is served in, and restores all it touched at the end.
    """

    @property
    def domain(self) -> Box: ...

    @property
    def access(self) -> Access: ...

    def held(self) -> AbstractContextManager[None]: ...

    def labels(self, x: Tensor) -> Tensor: ...

    def scores(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor, objective: Objective) -> Gradient: ...

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]: ...
