"""The process: its ports, one event loop, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from ..._errors import ConfigError, WithstandError
from ...config import host_and_port
from .._intake import Intake
from ._admin import BODY, Admin
from ._analysis import Analysis
from ._applied import applied
from ._door import Door
from ._port import Port
from ._service import Service

_log = logging.getLogger("withstand.guard")
_CONNECTIONS = 64
# Events that a cluster's logger sends to the operators' port are as long as bodies of requests.
_EVENT, _EVENTS = 32 * 2**20, 64 * 2**20
_TICK = 1.0


def serve(path: Path, *, told: Callable[[str, str], None] = lambda listen, admin: None) -> None:
    """Serve the guard that a file configures, until SIGTERM or SIGINT; SIGHUP reloads the file.

    told: the two addresses, once they are open. Raises WithstandError where it cannot begin.
    """
    import uvloop

    async def main() -> None:
        server = Server(path)
        loop = asyncio.get_running_loop()
        for number, act in (
            (signal.SIGTERM, server.end),
            (signal.SIGINT, server.end),
            (signal.SIGHUP, server.hang_up),
        ):
            loop.add_signal_handler(number, act)
        await server.run(told)

    uvloop.run(main())


class Server:
    """The ports and the guard behind them.

    Raises WithstandError where the file is broken, or a port cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.service = service = Service(path)
        limits = service.config.limits
        self._sockets: list[socket.socket] = []
        try:
            _allow(limits.connections + limits.upstream_connections * 2 + _CONNECTIONS * 2)
            for key in ("listen", "admin", "analysis"):
                address = getattr(service.config, key)
                if address is not None:
                    self._sockets.append(_bound(key, address))
        except BaseException:
            self._release()
            raise
        admin = Admin(service, service.token, beside={"/events": service.events})
        analysis = Analysis(service.canaries, service.exposition, service.analysis_token)
        clients = Door(
            service.answer, service.intake, limits, service.metrics, most=limits.connections,
            owner=service.owner,
        )  # fmt: skip
        operators = Door(
            applied(admin), Intake(body=_EVENT, most=_CONNECTIONS, memory=_EVENTS), limits,
            service.metrics, most=_CONNECTIONS, owner=admin.owner,
        )  # fmt: skip
        controllers = Door(
            applied(analysis), Intake(body=BODY, most=_CONNECTIONS, memory=BODY * _CONNECTIONS),
            limits, service.metrics, most=_CONNECTIONS,
        )  # fmt: skip
        doors = (clients, operators, controllers)
        self._clients, *self._beside = [
            Port(place, door) for place, door in zip(self._sockets, doors, strict=False)
        ]
        service.metrics.gauges["connections"] = lambda: len(clients.connections)
        self._ending = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, told: Callable[[str, str], None]) -> None:
        """Serve until `end`, then answer what is under way, for `drain_seconds` at most."""
        service = self.service
        service.start()
        tick = asyncio.create_task(self._tick())
        try:
            for port in (*self._beside, self._clients):
                await port.open()
            told(*(_name(one) for one in self._sockets[:2]))
            await self._ending.wait()
            await self._clients.close(service.config.limits.drain_seconds)
        finally:
            tick.cancel()
            await service.close()
            await asyncio.gather(*(port.close(1.0) for port in self._beside))
            await asyncio.gather(tick, return_exceptions=True)

    def end(self) -> None:
        """Take no more connections, and end; at once if it is asked for twice."""
        if self.service.draining:
            self._clients.hurry()
        self.service.draining = True
        self._ending.set()

    def hang_up(self) -> None:
        """Reload the file; where it is broken that is logged, and the old one goes on."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        try:
            await self.service.reload()
        except WithstandError as error:
            _log.error("%s", error)

    async def _tick(self) -> None:
        """Once a second: end slow connections, look after keys, see how late the loop is."""
        loop, service = asyncio.get_running_loop(), self.service
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK)
            now = loop.time()
            service.lag = max(0.0, now - before - _TICK)
            limits = service.config.limits
            self._clients.door.most = limits.connections
            for port in (self._clients, *self._beside):
                door = port.door
                door.limits = limits
                door.tick()
                for connection in list(door.connections):
                    connection.sweep(now)
            service.look_after()

    def _release(self) -> None:
        for one in self._sockets:
            one.close()
        self.service.release()


def _bound(key: str, address: str) -> socket.socket:
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        # From now on whoever connects waits rather than being refused.
        found.listen(2048)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"guard.{key} {address} cannot be opened: {error.strerror}; give another address"
        ) from None
    return found


def _name(place: socket.socket) -> str:
    host, port = place.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _allow(files: int) -> None:
    """Let the process have so many connections, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            raise ConfigError(
                f"guard.limits.connections needs {wanted} open files, and the system allows "
                f"{hard}; lower it, or raise `ulimit -n`"
            )
