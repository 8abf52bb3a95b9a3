"""An ASGI application behind a port: whole bodies both ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from .._asgi import Asgi, Message
from .._message import Answer, Request


def applied(app: Asgi) -> Callable[[Request], Awaitable[Answer]]:
    """What answers a request as an application does, which starts and ends its answer itself."""

    async def answer(request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        told: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
        said: list[Message] = []

        async def receive() -> Message:
            return told.pop() if told else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            said.append(message)

        scope = {
            "type": "http", "method": request.method, "path": unquote(path),
            "raw_path": path.encode("latin-1"), "query_string": query.encode("latin-1"),
            "headers": request.headers,
        }  # fmt: skip
        await app(scope, receive, send)
        start, *parts = said
        headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        return Answer(start["status"], headers, b"".join([one["body"] for one in parts]))

    return answer
