"""What stands before every query: stop, hours, users, pace."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .._errors import OperationError
from ._impact import Impact
from ._scope import Scope

STOP = "redteam.stop"
_NAP = 0.1
_ANSWERS = 10


class HaltError(OperationError):
    """The campaign must end before its next query."""


class RefusedError(OperationError):
    """The guard does not answer this query: the client is blocked or throttled."""


class Brakes:
    """Lets a query through, or raises HaltError with the reason.

    folder: where the file `redteam.stop` ends all campaigns as long as it is there. impact: looks
    at the guard, None without one. Queries are evenly spaced, so that no burst follows a pause.
    """

    def __init__(
        self,
        scope: Scope,
        folder: Path,
        impact: Impact | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._scope, self._impact = scope, impact
        self._file = folder / STOP
        self._clock, self._sleep, self._wall = clock, sleep, wall
        self._next = -float("inf")
        self._asked = ""
        self._answers: deque[float] = deque(maxlen=_ANSWERS)
        self._failures = 0

    def halt(self, why: str) -> None:
        """End it before the next query; to be called from a signal's handler, too."""
        self._asked = why

    def check(self) -> None:
        """Raise HaltError where nothing may be sent now."""
        if self._asked:
            raise HaltError(self._asked)
        if self._file.exists():
            raise HaltError(
                f"{self._file} is there; `withstand redteam stop --lift` lets campaigns go on"
            )
        if closed := self._scope.closed(self._wall()):
            raise HaltError(closed)
        safety = self._scope.safety
        if self._failures >= safety.failures:
            raise HaltError(f"{self._failures} queries one after the other were not answered")
        mean = sum(self._answers) / max(len(self._answers), 1)
        if len(self._answers) == _ANSWERS and mean > safety.answer:
            raise HaltError(
                f"the last {_ANSWERS} answers took {mean:.2f} s on average, more than "
                f"{safety.answer:g}"
            )
        if self._impact is not None and (why := self._impact.why()):
            raise HaltError(why)

    def wait(self, queries: int) -> None:
        """Wait for the turn of so many queries, and check until it has come."""
        self.check()
        while (left := self._next - self._clock()) > 0:
            self._sleep(min(left, _NAP))
            self.check()
        self._next = self._clock() + queries / self._scope.caps.per_second

    def pause(self, seconds: float) -> None:
        """Let no query through for so long."""
        self._next = max(self._next, self._clock() + seconds)

    def answered(self, seconds: float | None) -> None:
        """Tell how long an answer took, None where there was none or a server's failure."""
        if seconds is None:
            self._failures += 1
        else:
            self._failures = 0
            self._answers.append(seconds)
