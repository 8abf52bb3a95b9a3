"""The contract between an attack and the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from math import inf
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from .._errors import ThreatError
from ..models import Model, Objective
from ..threat import ACCESS, Access, Threat
from ..threat.tabular import Capability
from ._ball import length
from ._problem import Problem


class Query(NamedTuple):
    """What each row asks.

    points: (B, ...), or (B, M, ...) for M points a row; live: which of them are asked, (B,) or
    (B, M); a row without a live point is finished. objective: the loss whose gradient is wanted;
    it takes one point a row. unstarted: rows (B,) that end because they found nothing to begin
    with.
    """

    points: Tensor
    live: Tensor
    objective: Objective | None = None
    unstarted: Tensor | None = None


class Seen(NamedTuple):
    """What came back; fields beyond the access level, or not asked for, are None.

    points: as they were asked. hit (B,) or (B, M): the goal is reached there, inside the region or
    not. scores: (B, K) or (B, M, K); loss: (B,); gradient: (B, ...).
    """

    points: Tensor
    hit: Tensor
    scores: Tensor | None = None
    loss: Tensor | None = None
    gradient: Tensor | None = None


class Ask(Protocol):
    """The counted model, for what an attack must know before it starts."""

    def scores(self, problem: Problem) -> Tensor:
        """Scores (B, K) at x; 1 forward."""
        ...

    def jacobian(self, problem: Problem, outputs: Tensor) -> Tensor:
        """Gradients (B, J, ...) at x of chosen outputs (B, J); 1 forward, J backwards."""
        ...


class Attack(ABC):
    """Hyper-parameters, and pure functions on an explicit state: a NamedTuple of (B, ...) tensors.

    Rows are in phases of their own: they enter, finish and leave one by one. needs: the least
    access; norms: the geometries it knows; minimum_norm: it looks for the smallest change, so that
    it also attacks unbounded threats, and its problem has an eps that no change reaches; refines:
    it goes on after a success, within the same region, for an example of less effort; tables: it is
    made for rows of a table with a capability.
    """

    needs: ClassVar[Access]
    norms: ClassVar[tuple[str, ...]]
    minimum_norm: ClassVar[bool] = False
    refines: ClassVar[bool] = False
    tables: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for one in fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            if one.type == "int":
                # What may be none at all is none by default.
                least = 0 if one.default == 0 else 1
                if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                    raise ThreatError(
                        f"{one.name} of {type(self).__name__} is {value!r}; give a whole number of "
                        f"at least {least}"
                    )
            elif isinstance(value, float) and not 0 <= value < inf:
                raise ThreatError(
                    f"{one.name} of {type(self).__name__} is {value:g}; give a finite number of at "
                    "least 0"
                )

    @property
    def lanes(self) -> int:
        """How many tries a sample gets one after the other: restarts, or targets."""
        return 1

    @property
    def plan_cost(self) -> tuple[int, int]:
        """The most forwards and backwards that `plan` asks for."""
        return (0, 0)

    def plan(self, problem: Problem, ask: Ask) -> Tensor | None:
        """The target class of each lane (B, lanes), -1 for none; asked once for each sample."""
        return None

    def effort(self, x: Tensor, points: Tensor, norm: str, capability: Capability | None) -> Tensor:
        """What examples (B, ...) of x take of the attacker (B,); that of the least is kept."""
        return length(points - x, norm)

    @abstractmethod
    def init(self, problem: Problem) -> Any:
        """The state before the first query."""

    @abstractmethod
    def query(self, problem: Problem, state: Any) -> Query:
        """What to ask in this state."""

    @abstractmethod
    def step(self, problem: Problem, state: Any, seen: Seen) -> Any:
        """The state after an answer."""


def allowed(needs: Access, model: Model, threat: Threat) -> bool:
    """Whether model and threat both give an attack the access that it needs."""
    return max(ACCESS.index(model.access), ACCESS.index(threat.access)) <= ACCESS.index(needs)
