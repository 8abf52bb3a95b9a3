"""The guard as an ASGI application, without anything between it and the socket."""

from __future__ import annotations

import asyncio

from ._asgi import Message, Receive, Scope, Send
from ._guard import Guard
from ._message import Answer, Request, refusal


class App:
    """Serves a guard, which may be replaced while requests are under way.

    body: bytes; patience: seconds for a whole body to come; most: requests at one time; memory:
    bytes of all their bodies. All of it may be changed.
    """

    def __init__(
        self, guard: Guard, *, body: int = 16 * 2**20, patience: float = 10.0, most: int = 256,
        memory: int = 512 * 2**20,
    ) -> None:  # fmt: skip
        self.guard = guard
        self.body, self.patience, self.most, self.memory = body, patience, most, memory
        self._now = self._held = 0
        guard.metrics.gauges["in_flight"] = ("Requests under way.", lambda: self._now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        guard = self.guard
        size = self._size(scope)
        if self._now >= self.most or self._held + size > self.memory:
            guard.metrics.count("refused", "busy")
            await _send(send, refusal(503, "try again later", [(b"retry-after", b"1")]))
            return
        self._now += 1
        self._held += size
        try:
            answer = await self._answer(guard, scope, receive)
        except ConnectionError:
            guard.metrics.count("refused", "gone")
            return
        except asyncio.CancelledError:
            # The server ends, and has waited long enough.
            guard.metrics.count("refused", "ended")
            answer = refusal(503, "try again later", _LAST)
        finally:
            self._now -= 1
            self._held -= size
        await _send(send, answer)

    def _size(self, scope: Scope) -> int:
        """How much of the memory for bodies a request may come to need."""
        names = dict(scope["headers"])
        told = int(names.get(b"content-length", self.body if b"transfer-encoding" in names else 0))
        # What is longer is refused before it is read.
        return told if told <= self.body else 0

    async def _answer(self, guard: Guard, scope: Scope, receive: Receive) -> Answer:
        headers = list(scope["headers"])
        told = next((value for name, value in headers if name == b"content-length"), b"0")
        if int(told) > self.body:
            guard.metrics.count("refused", "too_large")
            return refusal(413, f"the body has more than {self.body} bytes", _LAST)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body = message.get("body", b"")
        if message.get("more_body") or len(body) > self.body:
            try:
                async with asyncio.timeout(self.patience):
                    body = await self._rest(message, receive)
            except TimeoutError:
                guard.metrics.count("refused", "slow_body")
                return refusal(408, "the body took too long", _LAST)
            except ValueError:
                guard.metrics.count("refused", "too_large")
                return refusal(413, f"the body has more than {self.body} bytes", _LAST)
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")
        return await guard.answer(Request(scope["method"], path, headers, body))

    async def _rest(self, message: Message, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.body:
                raise ValueError("too large")
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()


_LAST = [(b"connection", b"close")]


async def _send(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
