"""The process that browsers ask."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .._errors import ConfigError
from ..config import UiConfig, host_and_port
from ._app import App
from ._site import Site

_CONNECTIONS, _IDLE, _LAST_WORDS = 128, 15, 3


def serve(path: Path, *, told: Callable[[str], None] = lambda address: None) -> None:
    """Serve the pages that a file configures, until SIGTERM or SIGINT.

    told: the address, once it is open. Raises WithstandError where it cannot begin.
    """
    site = Site(path)
    app = App(site, secure=site.config.ui.tls is not None)
    try:
        # Read once before anybody asks, who would not be told what is wrong with it.
        site.accounts.all()
        _serve(app, site.config.ui, path.parent, told)
    finally:
        app.close()


def _serve(app: App, ui: UiConfig, folder: Path, told: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        app, http=_Connection, ws="none", lifespan="off", access_log=False, log_config=None,
        server_header=False, proxy_headers=False, limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE, timeout_graceful_shutdown=_LAST_WORDS,
    )  # fmt: skip
    if ui.tls is not None:
        config.load()
        config.ssl = _context(folder / ui.tls.certificate, folder / ui.tls.key)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with _bound(ui.listen) as listening, suppress(KeyboardInterrupt):
        host, port = listening.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        told(f"{'http' if ui.tls is None else 'https'}://{name}:{port}")
        asyncio.run(uvicorn.Server(config).serve([listening]))


class _Connection(H11Protocol):
    """A connection that ends where it stays without a whole request: others need its place."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._over()
        self._late = self.loop.call_later(_IDLE, self._end)

    def _end(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _over(self) -> None:
        if self._late is not None:
            self._late.cancel()


def _bound(address: str) -> socket.socket:
    host, port = host_and_port(address)
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"ui.listen {address} cannot be opened: {error.strerror}; give another address"
        ) from None
    return found


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        found.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ui.tls: {certificate} and {key} cannot be used ({error}); give PEM files, the key "
            "without a password"
        ) from None
    return found
