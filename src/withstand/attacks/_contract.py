"""The contract between an attack and the engine."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..models import Objective
from ..threat import Access
from ._problem import Problem


class Query(NamedTuple):
    """What a row wants to know: points (B, ...), which rows are live (B,), the loss if wanted."""

    points: Tensor
    live: Tensor
    objective: Objective | None = None


class Seen(NamedTuple):
    """What came back for each row; fields beyond the access level are None."""

    hit: Tensor
    scores: Tensor | None = None
    loss: Tensor | None = None
    gradient: Tensor | None = None


class Attack(Protocol):
    """Hyper-parameters, and pure functions on an explicit state: a NamedTuple of (B, ...) tensors.

    A row is finished when its query is not live; every row is in its own phase.
    """

    @property
    def needs(self) -> Access: ...

    @property
    def restarts(self) -> int: ...

    def init(self, problem: Problem) -> Any: ...

    def query(self, problem: Problem, state: Any) -> Query: ...

    def step(self, problem: Problem, state: Any, seen: Seen) -> Any: ...
