"""Who may ask now, and who has waited too long: without a timer or a task for each."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from .._message import UpstreamError


class Slots:
    """So many at one time; the others wait in a row."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._row: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot if there is one."""
        if not self._left:
            return False
        self._left -= 1
        return True

    async def wait(self, until: float) -> None:
        """Wait for a slot, and take it; raises UpstreamError where none is free in time.

        until: by the clock of the loop.
        """
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._row.append(mine)
        late = loop.call_at(until, mine.cancel)
        try:
            await asyncio.wait((mine,))
        except asyncio.CancelledError:
            if not mine.cancel() and not mine.cancelled():
                # It was given away already.
                self.free()
            raise
        finally:
            late.cancel()
        if mine.cancelled():
            raise UpstreamError(504, "upstream_busy")

    def free(self) -> None:
        """Give a slot back, or on to whoever has waited longest."""
        while self._row:
            first = self._row.popleft()
            if not first.done():
                first.set_result(None)
                return
        self._left += 1


class Expiring(Protocol):
    """What can wait too long."""

    def expire(self) -> None:
        """It has."""


class Deadlines:
    """Lets each of some expire at its time, by one timer for all of them."""

    def __init__(self) -> None:
        self._due: dict[Expiring, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0

    def add(self, one: Expiring, until: float) -> None:
        """Let it expire at a time, by the clock of the loop."""
        self._due[one] = until
        if self._timer is None or until < self._next:
            self._set(until)

    def remove(self, one: Expiring) -> None:
        """It need not expire any more. The timer is left: mostly the next one needs it."""
        self._due.pop(one, None)

    def _set(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer, self._next = loop.call_at(until, self._ring), until

    def _ring(self) -> None:
        self._timer, now = None, self._next
        over = [one for one, until in self._due.items() if until <= now]
        for one in over:
            del self._due[one]
            one.expire()
        if self._due:
            self._set(min(self._due.values()))
