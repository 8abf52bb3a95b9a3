"""The guard as an ASGI application, without anything between it and the socket."""

from __future__ import annotations

import asyncio

from ._asgi import Receive, Scope, Send
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
        guard.metrics.gauges["in_flight"] = lambda: self.intake.now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        guard, intake = self.guard, self.intake
        length = _length(scope)
        if length is not None and length > intake.body:
            guard.metrics.count("refused", "too_large")
            await _send(send, intake.too_large())
            return
        needed = intake.needed(length)
        owner = guard.owner(_request(scope)) if needed > LONG_BODY else ""
        if not isinstance(owner, str):
            await _send(send, owner)
            return
        try:
            body = await self._body(owner, needed, receive)
        except ConnectionError:
            guard.metrics.count("refused", "gone")
            return
        if isinstance(body, Answer):
            await _send(send, body)
            return
        if not intake.enter(len(body)):
            guard.metrics.count("refused", "busy")
            await _send(send, busy())
            return
        try:
            answer = await guard.answer(_request(scope, body))
        except asyncio.CancelledError:
            guard.metrics.count("refused", "ended")
            answer = ended()
        finally:
            intake.leave(len(body))
        await _send(send, answer)

    async def _body(self, owner: str, needed: int, receive: Receive) -> bytes | Answer:
        """The body of a request, or what is answered where it does not come."""
        intake, metrics = self.intake, self.guard.metrics
        loop = asyncio.get_running_loop()
        patience = asyncio.timeout(intake.patience)
        upload = intake.wait(owner, needed, loop.time(), lambda: patience.reschedule(loop.time()))
        if upload is None:
            metrics.count("refused", "busy")
            return busy()
        try:
            async with patience:
                return await self._parts(receive)
        except TimeoutError:
            metrics.count("refused", "slow_body")
            return too_slow()
        except ValueError:
            metrics.count("refused", "too_large")
            return intake.too_large()
        except asyncio.CancelledError:
            metrics.count("refused", "ended")
            return ended()
        finally:
            intake.drop(upload)

    async def _parts(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.intake.body:
                raise ValueError("too large")
            if not message.get("more_body"):
                return b"".join(parts)


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
