"""The process: its ports, one event loop, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from ..._errors import ConfigError, WithstandError
from ...config import host_and_port
from ._admin import Admin
from ._analysis import Analysis
from ._connection import Connection, Door
from ._service import Service

_log = logging.getLogger("withstand.guard")
_ADMIN_CONNECTIONS = 64
_TICK = 1.0
_LAST_WORDS = 1.0


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs several."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


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
            _allow(limits.connections + limits.upstream_connections * 2 + _ADMIN_CONNECTIONS * 2)
            for key in ("listen", "admin", "analysis"):
                address = getattr(service.config, key)
                if address is not None:
                    self._sockets.append(_bound(key, address))
        except BaseException:
            self._release()
            raise
        self._doors = tuple(
            Door(limits, service.metrics, most=most)
            for most in (limits.connections, _ADMIN_CONNECTIONS, _ADMIN_CONNECTIONS)
        )
        idle, drain = limits.idle_seconds, limits.drain_seconds
        self._clients = _server(service.app, self._doors[0], idle, drain)
        admin = Admin(service, service.token, beside={"/events": service.events})
        analysis = Analysis(service.canaries, service.exposition, service.analysis_token)
        self._beside = [
            _server(app, door, idle, 1.0)
            for app, door, _ in zip(
                (admin, analysis), self._doors[1:], self._sockets[1:], strict=False
            )
        ]
        connections = self._clients.server_state.connections
        service.metrics.gauges["connections"] = ("Clients' connections.", lambda: len(connections))
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, told: Callable[[str, str], None]) -> None:
        """Serve until `end`, then answer what is under way, for `drain_seconds` at most."""
        self.service.start()
        beside = [
            asyncio.create_task(server.serve([place]))
            for server, place in zip(self._beside, self._sockets[1:], strict=True)
        ]
        tick = asyncio.create_task(self._tick())
        try:
            told(*(_name(one) for one in self._sockets[:2]))
            await self._clients.serve([self._sockets[0]])
            await self._cut_off()
        finally:
            tick.cancel()
            await self.service.close()
            for server in self._beside:
                server.should_exit = True
            await asyncio.gather(*beside, tick, return_exceptions=True)

    async def _cut_off(self) -> None:
        """End what is left of connections; whoever reads is told, and nobody else is waited for."""
        state = self._clients.server_state
        if self._clients.force_exit:
            for task in state.tasks:
                task.cancel()
        for _ in range(2):
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=_LAST_WORDS)
            for connection in list(state.connections):
                connection.transport.abort()

    def end(self) -> None:
        """Take no more connections, and end; at once if it is asked for twice."""
        self._clients.force_exit = self.service.draining
        self.service.draining = self._clients.should_exit = True

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
            for door in self._doors:
                door.limits = limits
            self._doors[0].most = limits.connections
            for server in (self._clients, *self._beside):
                for connection in list(server.server_state.connections):
                    if isinstance(connection, Connection):
                        connection.sweep(now)
            service.look_after()

    def _release(self) -> None:
        for one in self._sockets:
            one.close()
        self.service.release()


def _server(app: Any, door: Door, idle: float, drain: float) -> _Server:
    config = uvicorn.Config(
        app,
        http=partial(Connection, door=door),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        loop="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(max(1, idle)),
        timeout_graceful_shutdown=int(max(1, drain)),
    )
    return _Server(config)


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
