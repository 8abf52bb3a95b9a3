"""A port: it is opened, and ends in order."""

from __future__ import annotations

import asyncio
import socket

from ._connection import Connection
from ._door import Door

_BACKLOG = 2048
_LAST_WORDS = 1.0


class Port:
    """Takes connections on a socket that listens, for one door."""

    def __init__(self, place: socket.socket, door: Door) -> None:
        self.door = door
        self._place = place
        self._server: asyncio.Server | None = None
        self._hurry = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None and self._server.is_serving()

    async def open(self) -> None:
        """Take connections from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self.door), sock=self._place, backlog=_BACKLOG
        )

    def hurry(self) -> None:
        """Wait for nothing more while it ends."""
        self._hurry.set()

    async def close(self, patience: float) -> None:
        """Take no more connections, and answer what is under way, in so many seconds at most.

        Then whoever reads is told that it ends, and nobody else is waited for.
        """
        door = self.door
        door.closing = True
        if self._server is not None:
            self._server.close()
        for connection in list(door.connections):
            connection.end()
        hurry = asyncio.create_task(self._hurry.wait())
        left = asyncio.create_task(self._left())
        try:
            await asyncio.wait((hurry, left), timeout=patience, return_when="FIRST_COMPLETED")
            for task in list(door.tasks):
                task.cancel()
            for connection in list(door.connections):
                connection.give_up()
            await asyncio.wait((left,), timeout=_LAST_WORDS)
            for connection in list(door.connections):
                connection.abort()
            await asyncio.wait((left,), timeout=_LAST_WORDS)
        finally:
            hurry.cancel()
            left.cancel()

    async def _left(self) -> None:
        """Wait until all connections have ended, and all that was asked on them."""
        await self.door.empty.wait()
        while self.door.tasks:
            await asyncio.wait(self.door.tasks)
