"""What the connections of a port share, and who of them gives way to a newcomer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from ...config import LimitsConfig
from .._intake import Intake
from .._message import Answer, Request
from .._metrics import Metrics

if TYPE_CHECKING:
    from ._connection import Connection


class Door:
    """What all connections of a port have in common; the limits may change while it is open.

    answer: what is behind it. owner: whose a request is, by its head, or what is answered whatever
    its body is. most: connections at one time; empty: set while there are none. closing: whether
    each connection ends with the answer that is under way.
    """

    def __init__(
        self, answer: Callable[[Request], Awaitable[Answer]], intake: Intake,
        limits: LimitsConfig, metrics: Metrics, *, most: int,
        owner: Callable[[Request], Answer | str] = lambda head: "",
    ) -> None:  # fmt: skip
        self.answer, self.owner, self.intake = answer, owner, intake
        self.limits, self.metrics, self.most = limits, metrics, most
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.closing = False
        self._waited: list[tuple[int, float, Connection]] = []
        self.tick()

    def tick(self) -> None:
        """Take the time for the header Date, which has whole seconds."""
        self.date = b"date: " + formatdate(usegmt=True).encode()
        self._waited.clear()

    def make_room(self, new: Connection) -> bool:
        """End the connection that has kept the guard waiting longest, but a new one; False where
        all are being answered."""
        for again in (False, True):
            if again:
                self._waited = self._longest(new)
            while self._waited:
                kind, since, one = self._waited.pop()
                if one in self.connections and one.waited() == (kind, since):
                    self.metrics.count("refused", "gave_way")
                    one.give_way()
                    return True
        return False

    def _longest(self, new: Connection) -> list[tuple[int, float, Connection]]:
        """Those that give way before all others, the one that has waited longest at the end.

        One list serves for many, so that a flood does not look through all each time.
        """
        others = [one for one in self.connections if one is not new]
        found = [(*waited, one) for one in others if (waited := one.waited())]
        first = min((kind for kind, _, _ in found), default=0)
        found = [one for one in found if one[0] == first]
        return sorted(found, key=lambda one: one[1], reverse=True)
