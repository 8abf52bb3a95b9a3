"""Connections to the model server: kept alive, strict about what comes back, never waiting long."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any

import httptools

from ..._errors import ConfigError
from .._message import Answer, Headers, UpstreamError
from ._headers import lines, received
from ._turns import Deadlines, Slots

_log = logging.getLogger("withstand.guard")
_HEAD = 65_536
_JOINED = 65_536


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long is waited, in seconds, and how much is taken.

    connect: for a connection; total: for the whole answer, waiting for a free connection included.
    body: bytes of an answer; connections: at most at one time; idle: how long one is kept.
    """

    connect: float = 1.0
    total: float = 30.0
    body: int = 64 * 2**20
    connections: int = 64
    idle: float = 30.0


class HttpPool:
    """A pool of connections to one http server, used from one event loop.

    A connection is used again only after an answer that ended as it should. A request is never sent
    twice. tls: for https; whom it trusts. Raises ConfigError for what is no address.
    """

    def __init__(
        self, host: str, port: int, *, patience: Patience | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        if not host or not 0 < port < 65_536:
            raise ConfigError(f"upstream {host}:{port} is no address; give a host and a port")
        self.host, self.port, self.patience = host, port, patience or Patience()
        # Whoever does not take part in closing holds a connection for so many seconds.
        self._tls: dict[str, Any] = (
            {"ssl": tls, "server_hostname": host, "ssl_shutdown_timeout": 1.0} if tls else {}
        )
        self._distrusted = ""
        self._idle: deque[tuple[_Connection, float]] = deque()
        self._slots = Slots(self.patience.connections)
        self._deadlines = Deadlines()
        self._host = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        self.opened = 0

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Answer:
        """Send a GET or POST and wait for the answer; raises UpstreamError where there is none.

        headers: names in small letters; those of the connection are ours.
        """
        head = self._head(method, target, headers, len(body))
        # One piece is one system call; what is large is not copied for that.
        parts = (head + body,) if len(body) < _JOINED else (head, body)
        loop = asyncio.get_running_loop()
        until = loop.time() + self.patience.total
        if not self._slots.take():
            await self._slots.wait(until)
        try:
            connection = self._kept(loop.time()) or await self._connected(until)
            waiting = loop.create_future()
            connection.send(parts, waiting)
            self._deadlines.add(connection, until)
            try:
                answer = await waiting
            except BaseException:
                # Also where whoever asked has gone: the answer would be taken for another's.
                connection.close()
                raise
            finally:
                self._deadlines.remove(connection)
            if connection.reusable:
                self._idle.append((connection, loop.time()))
        finally:
            self._slots.free()
        return received(answer)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[0].close()

    def _kept(self, now: float) -> _Connection | None:
        oldest = now - self.patience.idle
        while self._idle:
            # The last one used is the least likely to have been closed by the server.
            connection, since = self._idle.pop()
            if since >= oldest and connection.reusable:
                return connection
            connection.close()
        return None

    async def _connected(self, until: float) -> _Connection:
        loop = asyncio.get_running_loop()
        until = min(until, loop.time() + self.patience.connect)
        try:
            async with asyncio.timeout_at(until):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self.patience.body), self.host, self.port, **self._tls
                )
        except TimeoutError:
            raise UpstreamError(504, "upstream_unreachable") from None
        except ssl.SSLError as error:
            if str(error) != self._distrusted:
                self._distrusted = str(error)
                _log.error("https://%s:%d is not trusted: %s", self.host, self.port, error)
            raise UpstreamError(502, "upstream_tls") from None
        except OSError:
            raise UpstreamError(502, "upstream_down") from None
        self.opened += 1
        return connection

    def _head(self, method: str, target: str, headers: Headers, length: int) -> bytes:
        first = f"{method} {target} HTTP/1.1\r\nhost: ".encode("ascii") + self._host
        told = [first, *lines(headers)]
        told.append(b"content-length: %d\r\n\r\n" % length)
        return b"\r\n".join(told)


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it, and the parser of its answer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self.reusable = False
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.reusable = True

    def send(self, parts: tuple[bytes, ...], waiting: asyncio.Future[Answer]) -> None:
        """Send a request; the connection is reusable again when its answer has ended well."""
        assert self._transport is not None
        self.reusable = False
        self._waiting = waiting
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self._size = self._head_size = self._quiet = 0
        self._headed = self._done = False
        for part in parts:
            self._transport.write(part)

    def expire(self) -> None:
        """The answer has not come in time."""
        self._fail("upstream_slow", 504)

    def close(self) -> None:
        """Close it for good."""
        self.reusable = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._done:
            # Nobody asked: whatever it is, it must not be taken for the next answer.
            self.close()
            return
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # Its own errors, and what the callbacks below raise.
            self._fail("upstream_lies")
            return
        # What the parser holds of a header or trailer without an end is in none of them.
        if self._quiet > _HEAD:
            self._fail("upstream_lies")

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._waiting is not None and not self._done:
            self._fail("upstream_closed")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            # A trailer: as a header it would be one that nobody has looked at.
            return
        self._head_size += len(name) + len(value)
        if self._head_size > _HEAD:
            raise ValueError("too many headers")
        self._headers.append((name.lower(), value))

    def on_message_begin(self) -> None:
        if self._done:
            raise ValueError("an answer that nobody asked for")

    def on_headers_complete(self) -> None:
        self._headed = True
        lengths = 0
        for name, value in self._headers:
            if name == b"content-length":
                lengths += 1
            elif name == b"transfer-encoding":
                lengths += 1
                if value.lower() != b"chunked":
                    raise ValueError("another coding than chunks")
        status = self._parser.get_status_code()
        # Interim answers are not asked for, and two lengths, or none, open ways to desynchronise.
        if not 200 <= status < 600 or lengths > 1 or (not lengths and status not in (204, 304)):
            raise ValueError("an answer without one clear end")

    def on_body(self, chunk: bytes) -> None:
        self._quiet = 0
        self._size += len(chunk)
        if self._size > self._most:
            raise ValueError("too long")
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        assert self._waiting is not None
        self._done, self._quiet = True, 0
        self.reusable = bool(self._parser.should_keep_alive())
        if not self._waiting.done():
            body = b"".join(self._chunks)
            self._waiting.set_result(Answer(self._parser.get_status_code(), self._headers, body))
        if not self.reusable:
            self.close()

    def _fail(self, reason: str, status: int = 502) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(UpstreamError(status, reason))
        self.close()
