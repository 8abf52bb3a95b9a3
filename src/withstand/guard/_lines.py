"""What stands between the clients and one model."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ._ladder import Ladder, Mode, Standing
from ._message import Upstream
from ._sensor import Sensor
from .access import Quota
from .canary import Canary
from .wire import Inference, Limits


class Share:
    """Lets through at most a share of all that was counted so far, of that a few at once."""

    def __init__(self, share: float, *, burst: int = 10) -> None:
        self.share, self._burst, self._left = share, float(burst), 0.0

    def count(self) -> None:
        """One more of all."""
        self._left = min(self._burst, self._left + self.share)

    def take(self) -> bool:
        """Whether one may be let through."""
        if self._left < 1 - 1e-9:
            return False
        self._left -= 1
        return True


class Pace:
    """How long the model takes, so that a refusal takes as long and tells nothing by its time."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=256)

    def saw(self, seconds: float) -> None:
        """An answer of the model took so long."""
        self._seen.append(seconds)

    def usual(self) -> float:
        """The seconds that one of the last answers took."""
        return random.choice(self._seen) if self._seen else 0.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A check that gives the request as it will be forwarded, or raises RequestError.

    beside: it takes milliseconds, and is applied in a thread, while others are answered.
    """

    name: str
    apply: Callable[[Inference], Inference]
    beside: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """The way to one model, with all that looks at what is on it.

    raw: tensors go on as bytes. version, digest: of the model behind it, and policy: a digest of
    what configured all this, for evidence. reroute: who is asked instead for suspicious inputs,
    within `share` of all. delay: seconds, on average. throttled: the quota of clients that are
    throttled. digits: what coarsening leaves of scores, 0 for the class alone; top: so many of a
    row's highest, 0 for all. canary: a new version that is let in beside it.
    """

    mode: Mode
    upstream: Upstream
    limits: Limits = field(default_factory=Limits)
    raw: bool = False
    version: str = ""
    digest: str = ""
    policy: str = ""
    rules: tuple[Rule, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    standing: Standing = field(default_factory=lambda: Standing(Ladder()))
    reroute: Upstream | None = None
    share: Share = field(default_factory=lambda: Share(0.05))
    delay: float = 1.0
    throttled: Quota | None = None
    digits: int = 1
    top: int = 0
    pace: Pace = field(default_factory=Pace)
    canary: Canary | None = None

    @property
    def unchecked(self) -> bool:
        """Whether all goes on that can be read, although it is not only observed."""
        return self.mode != "observe" and not self.rules
