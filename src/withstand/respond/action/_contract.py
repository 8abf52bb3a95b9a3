"""The contract of what a runbook's step does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from ...monitor import Campaign
from .._desk import Desk
from .._incidents import Incident, Step


class Arguments(BaseModel):
    """Base of an action's arguments: none of its own, frozen, and no unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Told = TypeVar("Told", bound=Arguments)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a step is taken on: the incident, its campaign if it has one, and the step itself.

    who: the person or the part of the system on whose word it is taken. resumed: whether it was
    begun before, by a process that did not come to its end.
    """

    desk: Desk
    incident: Incident
    campaign: Campaign | None
    step: Step
    who: str
    resumed: bool = False

    @property
    def identity(self) -> str:
        """What the step is known by to others: the same one again must change nothing."""
        return f"incident-{self.incident.id}-step-{self.step.number}"

    @property
    def why(self) -> str:
        """The reason that is told to others."""
        return f"incident {self.incident.id}: {self.step.name} (runbook {self.step.runbook})"

    @property
    def folder(self) -> Path:
        """The folder of the incident."""
        return self.desk.folder(self.incident.id)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a step, in words; waiting: it goes on, and is to be looked at again."""

    state: Literal["done", "failed", "skipped", "waiting"]
    text: str
    detail: dict[str, Any] = field(default_factory=dict)


class Action(ABC, Generic[Told]):
    """Something that a step can do; the entry point group `withstand.actions` adds to ours.

    name: a word, for `action:`. told: the class of its arguments, with defaults. contains: whether
    it is there to hold an attack up, so that it is skipped when that is over.

    `act` may be called again for the same `Case.identity`, by another process, after one that was
    killed: it must then change nothing that it has changed before. What cannot be done raises
    OperationError; UnansweredError where it is worth another try.
    """

    name: str
    told: type[Arguments] = Arguments
    contains: bool = False

    @abstractmethod
    def plan(self, case: Case, told: Told) -> list[str]:
        """What it would do, a line each; touches nothing."""

    @abstractmethod
    def act(self, case: Case, told: Told) -> Outcome:
        """Do it, or look how far it has got."""

    def stop(self, case: Case) -> None:
        """End what it has begun and what takes too long."""
        return None
