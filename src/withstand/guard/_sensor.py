"""The contract of whatever looks at requests and says how suspicious they are."""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ._routes import Route
from .access import Key
from .answers import Answered
from .wire import Inference

Failure = Literal["open", "closed"]
"""What becomes of a request that a sensor failed on: it goes on, or it is refused."""


class Signal(NamedTuple):
    """What a sensor says: a score, higher is more suspicious, and whether that is a flag.

    failed: a word that tells why there is no score, such as timeout; empty where there is one.
    """

    sensor: str
    score: float
    threshold: float
    flagged: bool
    failed: str = ""


@dataclass(kw_only=True, eq=False)
class Call:
    """One request on its way: who asks what, and what was found out so far.

    asked: as it will be forwarded. trace: the checks that changed it, with the digest after each.
    fingerprint: keyed digest (hex) of all inputs. standing: how far up the ladder the client stands
    because of earlier requests; level: with this one. arm: of a canary, empty without one; forced:
    a permitted attack asked for it. status: the model's, 0 until it answers, -1 until it is asked.
    noted: what sensors keep until the answer, each under its name. habit: how the client asks, for
    the record of a flag.
    """

    route: Route
    key: Key
    started: float
    asked: Inference
    fingerprint: str = ""
    trace: list[tuple[str, str]] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    standing: int = 0
    level: int = 0
    arm: str = ""
    forced: bool = False
    status: int = -1
    noted: dict[str, Any] = field(default_factory=dict)
    habit: dict[str, float] | None = None


class Sensor(ABC):
    """Something that looks at a request before it is forwarded, and at its answer.

    name: a word, under which it is counted and recorded. action: where on the ladder a flag
    begins. on_failure: what becomes of a request when it raises or takes too long. climbs: whether
    its flags make the client climb. version: tells fitted state apart, in evidence.
    """

    name: str
    action: str = "tag"
    on_failure: Failure = "open"
    climbs: bool = True
    version: str = ""

    def look(self, call: Call) -> Signal | Awaitable[Signal | None] | None:
        """What it says of a request; what takes longer than some 50 microseconds is awaited."""
        return None

    def learn(self, call: Call, answered: Answered) -> Signal | None:
        """What it says once the model has answered: it can only act upon the answer."""
        return None

    def close(self) -> None:
        """Let go of what is held open."""
        return None
