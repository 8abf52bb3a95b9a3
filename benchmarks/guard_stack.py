"""The guard's stack without the guard: what reading, passing on and answering cost alone."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop

from withstand.config import LimitsConfig
from withstand.guard import Answer, Metrics, Request
from withstand.guard._intake import Intake
from withstand.guard.serve._door import Door
from withstand.guard.serve._port import Port
from withstand.guard.upstream import HttpPool
from withstand.guard.wire import Limits, read_v2, write_v2

LENGTH = b"inference-header-content-length"
SCORES = b'{"outputs":[{"name":"scores","datatype":"FP32","shape":[1,1],"data":[0.1]}]}'
JSON = (b"content-type", b"application/json")
Behind = Callable[[Request], Awaitable[Answer]]


def behind(kind: str, server: int) -> Behind:
    """answers: at once. forwards: the body as it came. reads: the body as it was read."""
    pool, limits = HttpPool("127.0.0.1", server), Limits()

    async def answers(request: Request) -> Answer:
        return Answer(200, [JSON], SCORES)

    async def forwards(request: Request) -> Answer:
        headers = [pair for pair in request.headers if pair[0] in (LENGTH, b"content-type")]
        return await pool.ask(request.method, request.path, headers, request.body)

    async def reads(request: Request) -> Answer:
        length = dict(request.headers).get(LENGTH)
        asked = read_v2(request.body, length.decode() if length else None, limits)
        body, told = write_v2(asked, raw=True)
        headers = [(name.encode(), value.encode()) for name, value in told.items()]
        return await pool.ask(request.method, request.path, headers, body)

    return {"answers": answers, "forwards": forwards, "reads": reads}[kind]


def application(behind: Behind) -> Any:
    """By ASGI, without limits of any kind."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        path = scope["raw_path"].decode()
        answer = await behind(Request(scope["method"], path, scope["headers"], b"".join(parts)))
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    return app


async def own(behind: Behind, port: int) -> None:
    """By the guard's own protocol."""
    place = socket.create_server(("127.0.0.1", port))
    door = Door(behind, Intake(), LimitsConfig(), Metrics(), most=1024)
    await Port(place, door).open()
    await asyncio.Event().wait()


if __name__ == "__main__":
    way, kind, port, server = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if way == "own":
        uvloop.run(own(behind(kind, server), port))
    else:
        uvicorn.run(
            application(behind(kind, server)), host="127.0.0.1", port=port, log_level="error",
            access_log=False, lifespan="off",
        )  # fmt: skip
