"""Where a cluster that already logs its payloads can send them."""

from __future__ import annotations

import asyncio

from ..._errors import EvidenceError
from .._asgi import Receive, Scope, Send
from .._message import Answer, refusal
from ._event import event_of_http
from ._imports import ImportCounts, Imports


class EventSink:
    """An ASGI application that takes KServe's CloudEvents by POST: a service's `logger.url`.

    body: bytes of one; most: at one time, beyond which it answers 503; patience: seconds for a
    body. It checks no credentials: whoever mounts it does. After `close` it answers 503, too.
    """

    def __init__(
        self, imports: Imports, *, body: int = 32 * 2**20, most: int = 8, patience: float = 10.0
    ) -> None:
        self._imports, self._body, self._most, self._patience = imports, body, most, patience
        self._now = 0
        self._closed = False
        self.refused = 0

    @property
    def counts(self) -> ImportCounts:
        """What became of the events so far."""
        return self._imports.counts

    def close(self) -> None:
        """Write down the events that still wait for their other half."""
        self._closed = True
        self._imports.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        self.refused += answer.status >= 400
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            return refusal(405, "send events by POST", [(b"allow", b"POST")])
        if self._closed or self._now >= self._most:
            return refusal(503, "try again later", [(b"retry-after", b"1")])
        self._now += 1
        try:
            async with asyncio.timeout(self._patience):
                body = await self._read(receive)
            if body is None:
                return refusal(413, f"the body has more than {self._body} bytes")
            event = event_of_http(scope["headers"], body)
            # Bodies of megabytes take a while to read; nobody else shall wait for that.
            await asyncio.to_thread(self._imports.take, event)
        except TimeoutError:
            return refusal(408, "the body took too long")
        except EvidenceError as error:
            return refusal(400, str(error))
        finally:
            self._now -= 1
        return Answer(202, [], b"")

    async def _read(self, receive: Receive) -> bytes | None:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise EvidenceError("the body ended early")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._body:
                return None
            if not message.get("more_body"):
                return b"".join(parts)
