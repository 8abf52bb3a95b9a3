"""A client's connection, with the limits that uvicorn leaves open."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ...config import LimitsConfig
from .._message import refusal
from .._metrics import Metrics

# What clients send makes uvicorn warn, line after line; it is counted instead.
_log = logging.getLogger("withstand.guard.http")
_log.setLevel(logging.ERROR)
_HEADERS = 100
_PIPELINED = 16
_IDLE, _HEAD, _BODY = range(3)


class Door:
    """What all connections of a port have in common; the limits may change while it is open."""

    def __init__(self, limits: LimitsConfig, metrics: Metrics, *, most: int) -> None:
        self.limits, self.metrics, self.most = limits, metrics, most


class _MalformedError(Exception):
    """A head that is refused, for the parser to raise."""


class Connection(HttpToolsProtocol):
    """Refuses heads that servers read differently, and ends connections that take too long.

    For uvicorn's `http`, with `door` bound to it. `sweep` is called for each about once a second.
    """

    def __init__(self, *words: Any, door: Door, **named: Any) -> None:
        super().__init__(*words, **named)
        self._door, self.logger = door, _log
        self._phase, self._since = _HEAD, self.loop.time()
        self._head = 0
        self._why = (400, "not_http", "this is not HTTP as it should be")
        self._blocked = self._closing = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._door.most:
            self._refuse(503, "connections", "try again later")

    def data_received(self, data: bytes) -> None:
        if self._phase == _IDLE:
            self._phase, self._since, self._head = _HEAD, self.loop.time(), 0
        if self._phase == _HEAD:
            self._head += len(data)
        super().data_received(data)
        # What the parser holds of a header that has no end yet is in none of its callbacks.
        if self._phase == _HEAD and self._head > self._door.limits.headers:
            self._refuse(431, "headers", "the headers are too long")

    def on_headers_complete(self) -> None:
        self._phase, self._since = _BODY, self.loop.time()
        self._check()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._phase = _IDLE
        super().on_message_complete()

    def _check(self) -> None:
        limits, headers = self._door.limits, self.headers
        names = [name for name, _ in headers]
        # With the beginning of the body, mostly so little that there is no need to add up.
        size = self._head
        if size > limits.headers:
            size = len(self.url) + sum([len(name) + len(value) for name, value in headers])
        if size > limits.headers or len(names) > _HEADERS:
            raise self._malformed(431, "headers", "the headers are too long")
        if self.parser.should_upgrade():
            # The parser drops the body of such a request.
            raise self._malformed(400, "upgrade", "HTTP/1.1 without Upgrade, please")
        if len(self.pipeline) >= _PIPELINED:
            raise self._malformed(400, "pipelined", "too many requests before an answer")
        hosts = names.count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            raise self._malformed(400, "host", "one Host, please")
        if b"transfer-encoding" in names:
            version = self.parser.get_http_version()
            codings = [value for name, value in headers if name == b"transfer-encoding"]
            length = b"content-length" in names
            if length or version != "1.1" or [one.lower() for one in codings] != [b"chunked"]:
                raise self._malformed(400, "framing", "one length or chunks, not both")
        elif names.count(b"content-length") > 1:
            raise self._malformed(400, "framing", "one Content-Length, please")

    def _malformed(self, status: int, reason: str, text: str) -> _MalformedError:
        self._why = (status, reason, text)
        return _MalformedError(reason)

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._why)

    def _refuse(self, status: int, reason: str, text: str) -> None:
        if self.transport.is_closing():
            return
        self._door.metrics.count("refused", reason)
        if self.cycle is None or (self.cycle.response_complete and not self.pipeline):
            answer = refusal(status, text)
            told = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d"
            head = STATUS_LINE[status] + told % len(answer.body)
            self.transport.write(head + b"\r\n\r\n" + answer.body)
        # Else it would be taken for the answer to the request before.
        self.transport.close()

    def pause_writing(self) -> None:
        self._blocked = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._blocked = 0.0
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """End it where the client has taken too long to send or to read."""
        limits = self._door.limits
        if self.transport.is_closing():
            self._closing = self._closing or now
        if self.flow.read_paused:
            # That nothing comes is our doing.
            self._since = now
        since = self._closing or self._blocked
        if since:
            if now - since > limits.read_seconds:
                self._door.metrics.count("refused", "unread")
                self.transport.abort()
        elif self._phase == _HEAD and now - self._since > limits.head_seconds:
            self._refuse(408, "slow_head", "the headers took too long")
        elif self._phase == _BODY and now - self._since > limits.body_seconds + 1:
            # It has been answered before, and goes on sending all the same.
            self._door.metrics.count("refused", "slow_body")
            self.transport.abort()
