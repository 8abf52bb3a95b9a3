"""Connections to the model server: kept alive, strict about what comes back, never waiting long."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

import httptools

from ..._errors import ConfigError
from .._message import Answer, Headers, UpstreamError

_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"content-length",
}  # fmt: skip
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HEAD = 65_536


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
    twice. Raises ConfigError for what is no address.
    """

    def __init__(self, host: str, port: int, *, patience: Patience | None = None) -> None:
        if not host or not 0 < port < 65_536:
            raise ConfigError(f"upstream {host}:{port} is no address; give a host and a port")
        self.host, self.port, self.patience = host, port, patience or Patience()
        self._idle: deque[tuple[_Connection, float]] = deque()
        self._free = asyncio.Semaphore(self.patience.connections)
        self._host = f"{host}:{port}".encode()
        self.opened = 0

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Answer:
        """Send a GET or POST and wait for the answer; raises UpstreamError where there is none.

        headers: names in small letters; those of the connection are ours.
        """
        request = self._request(method, target, headers, body)
        try:
            async with asyncio.timeout(self.patience.total), self._free:
                connection = self._kept() or await self._connected()
                try:
                    answer = await connection.ask(request)
                except BaseException:
                    # Also where whoever asked has gone: the answer would be taken for another's.
                    connection.close()
                    raise
        except TimeoutError:
            raise UpstreamError(504, "upstream_slow") from None
        if connection.reusable:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        return answer

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[0].close()

    def _kept(self) -> _Connection | None:
        oldest = asyncio.get_running_loop().time() - self.patience.idle
        while self._idle:
            # The last one used is the least likely to have been closed by the server.
            connection, since = self._idle.pop()
            if since >= oldest and connection.reusable:
                return connection
            connection.close()
        return None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.patience.connect):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self.patience.body), self.host, self.port
                )
        except TimeoutError:
            raise UpstreamError(504, "upstream_unreachable") from None
        except OSError:
            raise UpstreamError(502, "upstream_down") from None
        self.opened += 1
        return connection

    def _request(self, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        lines = [f"{method} {target} HTTP/1.1".encode("ascii"), b"host: " + self._host]
        for name, value in headers:
            # What could end a header early would smuggle a second request.
            if not _TOKEN.fullmatch(name) or not _TEXT.fullmatch(value):
                raise UpstreamError(502, "header")
            if name not in _HOP and name != b"host":
                lines.append(name + b": " + value)
        lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join((*lines, b"", body))


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it, and the parser of its answer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self.reusable = False
        self._parser: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.reusable = True

    async def ask(self, request: bytes) -> Answer:
        """Send a request; the connection is reusable again when its answer has ended well."""
        assert self._transport is not None
        self.reusable = False
        self._waiting = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self._size = self._head_size = 0
        self._done = False
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Close it for good."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._done:
            # Nobody asked: whatever it is, it must not be taken for the next answer.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # Its own errors, and what the callbacks below raise.
            self._fail("upstream_lies")

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._waiting is not None and not self._done:
            self._fail("upstream_closed")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _HEAD:
            raise ValueError("too many headers")
        self._headers.append((name.lower(), value))

    def on_message_begin(self) -> None:
        if self._done:
            raise ValueError("an answer that nobody asked for")

    def on_headers_complete(self) -> None:
        names = [name for name, _ in self._headers]
        lengths = names.count(b"content-length") + names.count(b"transfer-encoding")
        status = self._parser.get_status_code()
        # Interim answers are not asked for, and two lengths, or none, open ways to desynchronise.
        if status < 200 or lengths > 1 or (not lengths and status not in (204, 304)):
            raise ValueError("an answer without one clear end")

    def on_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._most:
            raise ValueError("too long")
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        assert self._waiting is not None
        self._done = True
        self.reusable = bool(self._parser.should_keep_alive())
        kept = [(name, value) for name, value in self._headers if name not in _HOP]
        if not self._waiting.done():
            body = b"".join(self._chunks)
            self._waiting.set_result(Answer(self._parser.get_status_code(), kept, body))
        if not self.reusable:
            self.close()

    def _fail(self, reason: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(UpstreamError(502, reason))
        self.close()
