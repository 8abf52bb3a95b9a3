"""The monitor in service: its loop, and the port that Prometheus asks."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ..._errors import ConfigError, OperationError
from ...config import host_and_port
from .._check import warnings
from .._monitor import Monitor
from ..export._exposition import Exposition

_log = logging.getLogger("withstand.monitor")
_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_SLOWEST = 3


class Port:
    """/metrics and /health of a monitor, for this machine, from a thread of its own.

    The Host header must be this machine's name, so that no page in a browser reads it. Raises
    ConfigError where the address cannot be had.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._registry = CollectorRegistry()
        self._registry.register(
            Exposition(
                monitor.store,
                monitor.slos,
                clock=monitor.clock,
                latest=monitor.latest,
                own=monitor.own,
            )
        )
        host, port = host_and_port(monitor.config.listen)
        try:
            self._server = _server(host, port, self._handler())
        except OSError as error:
            raise ConfigError(
                f"monitor.listen {monitor.config.listen} cannot be opened: {error.strerror}; give "
                "another address"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5.0)
        self._server.server_close()

    def _metrics(self, accept: str) -> tuple[int, str, bytes]:
        encode, kind = choose_encoder(accept)
        try:
            return 200, kind, encode(self._registry)
        except OperationError as error:
            _log.error("%s", error)
            return 503, "text/plain", b"the store cannot be read\n"
        finally:
            # Each request has a thread of its own.
            self._monitor.store.release()

    def _health(self) -> tuple[int, str, bytes]:
        monitor = self._monitor
        late = _SLOWEST * monitor.config.every + 60.0
        last = monitor.looked
        live = 0 <= monitor.clock() - last < late
        told = {"live": live, "last_look": last}
        return (200 if live else 503), "application/json", json.dumps(told).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        port = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version, sys_version = "withstand", ""

            def do_GET(self) -> None:
                status, kind, body = self._answer()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self) -> tuple[int, str, bytes]:
                if not _HOST.fullmatch(self.headers.get("Host", "")):
                    return 421, "text/plain", b"this is not the name of this machine\n"
                if self.path == "/metrics":
                    return port._metrics(self.headers.get("Accept", ""))
                if self.path == "/health":
                    return port._health()
                return 404, "text/plain", b"there is nothing here\n"

        return Handler


def _server(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingTCPServer:
    class Server(ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        allow_reuse_address = daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            # Whoever has gone away needs no answer, and nobody a traceback of that.
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    return Server((host, port), handler)


def serve(path: Path, *, told: Callable[[str], None]) -> None:
    """Watch until SIGTERM or SIGINT; told: the address of its port. Raises WithstandError."""
    stop = threading.Event()
    monitor = Monitor(path)
    port = Port(monitor)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    port.start()
    told(port.address)
    for line in warnings(monitor.told, path.parent):
        _log.warning("%s", line)
    try:
        monitor.run(stop)
    finally:
        port.close()
