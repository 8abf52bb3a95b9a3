"""The guard as an ASGI application, without anything between it and the socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ._guard import Guard
from ._message import Answer, Request, refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class App:
    """Serves a guard, which may be replaced while requests are under way.

    body: bytes; patience: seconds for a whole body to come; most: requests at one time.
    """

    def __init__(
        self, guard: Guard, *, body: int = 16 * 2**20, patience: float = 10.0, most: int = 256
    ) -> None:
        self.guard = guard
        self._body, self._patience, self._most = body, patience, most
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        guard = self.guard
        if self._now >= self._most:
            guard.metrics.refused("busy")
            await _send(send, refusal(503, "try again later", [(b"retry-after", b"1")]))
            return
        self._now += 1
        guard.metrics.in_flight.inc()
        try:
            await _send(send, await self._answer(guard, scope, receive))
        finally:
            self._now -= 1
            guard.metrics.in_flight.dec()

    async def _answer(self, guard: Guard, scope: Scope, receive: Receive) -> Answer:
        headers = list(scope["headers"])
        told = next((value for name, value in headers if name == b"content-length"), b"0")
        if int(told) > self._body:
            guard.metrics.refused("too_large")
            return refusal(413, f"the body has more than {self._body} bytes", _LAST)
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            try:
                async with asyncio.timeout(self._patience):
                    body = await self._rest(body, receive)
            except TimeoutError:
                guard.metrics.refused("slow_body")
                return refusal(408, "the body took too long", _LAST)
            except ValueError:
                guard.metrics.refused("too_large")
                return refusal(413, f"the body has more than {self._body} bytes", _LAST)
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")
        return await guard.answer(Request(scope["method"], path, headers, body))

    async def _rest(self, begun: bytes, receive: Receive) -> bytes:
        parts, size = [begun], len(begun)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._body:
                raise ValueError("too large")
            if not message.get("more_body"):
                return b"".join(parts)


_LAST = [(b"connection", b"close")]


async def _send(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
