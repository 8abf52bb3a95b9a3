"""The guard as an ASGI application, without anything between it and the socket."""

from __future__ import annotations

import asyncio

from ._asgi import Message, Receive, Scope, Send
from ._guard import Guard
from ._intake import LONG_BODY, Intake, busy, ended, too_slow
from ._message import Answer, Request


class App:
    """Serves a guard, which may be replaced while requests are under way.

    body, patience, most, memory: as those of its `intake`, where they may be changed.
    """

    def __init__(
        self, guard: Guard, *, body: int = 16 * 2**20, patience: float = 10.0, most: int = 256,
        memory: int = 512 * 2**20,
    ) -> None:  # fmt: skip
        self.guard = guard
        self.intake = Intake(body=body, patience=patience, most=most, memory=memory)
        guard.metrics.gauges["in_flight"] = ("Requests under way.", lambda: self.intake.now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        guard, intake = self.guard, self.intake
        length = _length(scope)
        needed = intake.needed(length)
        barred = guard.barred(_request(scope)) if needed > LONG_BODY else None
        if barred is not None:
            await _send(send, barred)
            return
        if not intake.enter(needed):
            guard.metrics.count("refused", "busy")
            await _send(send, busy())
            return
        try:
            answer = await self._answer(guard, scope, length, receive)
        except ConnectionError:
            guard.metrics.count("refused", "gone")
            return
        except asyncio.CancelledError:
            guard.metrics.count("refused", "ended")
            answer = ended()
        finally:
            intake.leave(needed)
        await _send(send, answer)

    async def _answer(
        self, guard: Guard, scope: Scope, length: int | None, receive: Receive
    ) -> Answer:
        intake = self.intake
        if length is not None and length > intake.body:
            guard.metrics.count("refused", "too_large")
            return intake.too_large()
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body = message.get("body", b"")
        if message.get("more_body") or len(body) > intake.body:
            try:
                async with asyncio.timeout(intake.patience):
                    body = await self._rest(message, receive)
            except TimeoutError:
                guard.metrics.count("refused", "slow_body")
                return too_slow()
            except ValueError:
                guard.metrics.count("refused", "too_large")
                return intake.too_large()
        return await guard.answer(_request(scope, body))

    async def _rest(self, message: Message, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.intake.body:
                raise ValueError("too large")
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()


def _request(scope: Scope, body: bytes = b"") -> Request:
    path = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        path += "?" + scope["query_string"].decode("latin-1")
    return Request(scope["method"], path, list(scope["headers"]), body)


def _length(scope: Scope) -> int | None:
    """What a request tells of its body's length, None where it comes in chunks."""
    names = dict(scope["headers"])
    told = names.get(b"content-length")
    if told is None:
        return None if b"transfer-encoding" in names else 0
    return int(told)


async def _send(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
