"""An ASGI application in the same process, asked as a server would be."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from urllib.parse import unquote

from .._asgi import Asgi, Message, Scope
from .._message import Answer, Headers, UpstreamError
from ._headers import received, sent
from ._pool import Patience

_log = logging.getLogger("withstand.guard")

ARRIVED: ContextVar[Scope | None] = ContextVar("withstand_arrived", default=None)
"""The scope of the request that is being answered, where the guard stands inside a server."""

_OF_THE_BODY = {
    b"content-type", b"content-length", b"content-encoding", b"transfer-encoding",
    b"inference-header-content-length", b"x-withstand-flagged",
}  # fmt: skip


class AppUpstream:
    """An ASGI application, used from one event loop; of Patience, not `connect` and `idle`.

    Where the guard stands inside a server, the application sees the request that arrived, with its
    own path and headers; only the body and the headers that tell of it are the guard's.
    """

    def __init__(self, app: Asgi, *, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._app = app
        self._free = asyncio.Semaphore(self.patience.connections)
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Answer:
        """Send a GET or POST and wait for the answer; raises UpstreamError where there is none."""
        scope = _scope(method, target, [*sent(headers), (b"content-length", b"%d" % len(body))])
        exchange = _Exchange(body, self.patience.body)
        try:
            async with asyncio.timeout(self.patience.total), self._free:
                # A task, since an application may go on with other work after its answer.
                task = asyncio.ensure_future(self._app(scope, exchange.receive, exchange.send))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                task.add_done_callback(exchange.ended)
                try:
                    return received(await exchange.answer)
                except BaseException:
                    task.cancel()
                    raise
        except TimeoutError:
            raise UpstreamError(504, "upstream_slow") from None

    def close(self) -> None:
        """Nothing is held open: the application is the caller's."""


def _scope(method: str, target: str, headers: Headers) -> Scope:
    arrived = ARRIVED.get()
    if arrived is not None:
        kept = [pair for pair in arrived["headers"] if pair[0].lower() not in _OF_THE_BODY]
        told = {name for name, _ in kept}
        return {**arrived, "headers": kept + [pair for pair in headers if pair[0] not in told]}
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": None,
        "server": None,
    }


class _Exchange:
    """One request, and what the application sends back."""

    def __init__(self, body: bytes, most: int) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._body: bytes | None = body
        self._most, self._size = most, 0
        self._begun: Answer | None = None
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.wait([self.answer])
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.answer.done():
            return
        kind, begun = message["type"], self._begun
        if kind == "http.response.start" and begun is None:
            headers = [(bytes(n).lower(), bytes(v)) for n, v in message.get("headers", ())]
            self._begun = Answer(message["status"], headers, b"")
        elif kind == "http.response.body" and begun is not None:
            part = bytes(message.get("body", b""))
            self._size += len(part)
            self._parts.append(part)
            if self._size > self._most:
                self._fail("upstream_lies")
            elif not message.get("more_body", False):
                lengths = [value for name, value in begun.headers if name == b"content-length"]
                if not 200 <= begun.status < 600 or lengths not in ([], [b"%d" % self._size]):
                    self._fail("upstream_lies")
                else:
                    self.answer.set_result(begun._replace(body=b"".join(self._parts)))
        else:
            self._fail("upstream_lies")

    def ended(self, task: asyncio.Task[None]) -> None:
        """The application has returned, or raised."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("the application behind the guard failed", exc_info=error)
        self._fail("upstream_failed" if error is not None else "upstream_closed")

    def _fail(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(UpstreamError(502, reason))
