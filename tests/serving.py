"""A guard as its file configures it, on real sockets, with a model server behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
import yaml
from guarding import Model, v2_body

from withstand.guard.serve import Server

X = [[0.1, 0.2, 0.3, 0.4]]
PATH = "/v2/models/m/infer"


class Reply(NamedTuple):
    """An answer as a client reads it; status 0 where there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(body: bytes = b"", path: str = PATH, *, method: str = "POST", **headers: str) -> bytes:
    """The bytes of a request; underscores in the names of headers stand for dashes."""
    told = {"host": "localhost", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """The next answer on a connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Reply(0, {}, b"")
    return Reply(int(first.split()[1]), headers, body)


class Running:
    """A guard that serves, and how it is asked."""

    def __init__(self, server: Server, file: Path, config: dict[str, Any]) -> None:
        self.server, self.file, self.config = server, file, config
        self.port = self.admin_port = 0
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def service(self) -> Any:
        return self.server.service

    async def open(self, port: int | None = None) -> tuple[asyncio.StreamReader, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        self.writers.append(writer)
        return reader, writer

    async def send(self, content: bytes, port: int | None = None) -> Reply:
        """What is answered to some bytes on a connection of their own."""
        reader, writer = await self.open(port)
        with suppress(ConnectionError):
            writer.write(content)
            await writer.drain()
        async with asyncio.timeout(60):
            reply = await read_reply(reader)
        writer.close()
        return reply

    async def infer(self, x: Any = X, **headers: str) -> Reply:
        return await self.send(request(v2_body(x), **headers))

    async def admin(self, path: str, method: str = "GET", body: bytes = b"", **more: str) -> Reply:
        return await self.send(request(body, path, method=method, **more), self.admin_port)

    async def change(self, path: str, **content: str) -> Reply:
        """A change by the admin port, with the token."""
        bearer = f"Bearer {self.service.token}"
        return await self.admin(path, "POST", json.dumps(content).encode(), authorization=bearer)

    def rewrite(self, **changes: Any) -> None:
        """Write the file anew, with other keys."""
        self.config = {**self.config, **changes}
        self.file.write_text(yaml.safe_dump({"guard": self.config}))

    def counted(self, name: str, **labels: str) -> float:
        found = self.service.metrics.registry.get_sample_value(f"withstand_{name}", labels)
        return 0.0 if found is None else float(found)

    def refused(self, reason: str) -> float:
        return self.counted("refused_total", reason=reason)


@asynccontextmanager
async def model_server(model: Model, port: int = 0) -> AsyncIterator[int]:
    """A model behind a socket of its own."""
    writers = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                pairs = [line.partition(": ") for line in lines]
                headers = [(name.encode(), value.encode()) for name, _, value in pairs]
                length = int(dict(headers)[b"content-length"])
                method, target, _ = first.split(" ")
                body = await reader.readexactly(length)
                found = await model.ask(method, target, headers, body)
                told = b"".join(b"%s: %s\r\n" % pair for pair in found.headers)
                writer.write(
                    b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n"
                    % (found.status, told, len(found.body))
                )
                writer.write(found.body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        # Those that read them end in the loop's next turns.
        await asyncio.sleep(0.02)


def serving(
    folder: Path, work: Callable[[Running], Awaitable[Any]], *, model: Any = None, **config: Any
) -> Any:
    """Do something with a guard that serves; it ends in order afterwards."""

    async def main() -> Any:
        async with model_server(model or Model()) as port:
            told = {
                "upstream": f"http://127.0.0.1:{port}", "listen": "127.0.0.1:0",
                "admin": "127.0.0.1:0", "open": True, "mode": "enforce", **config,
            }  # fmt: skip
            file = folder / "withstand.yaml"
            file.write_text(yaml.safe_dump({"guard": told}))
            running = Running(Server(file), file, told)
            ready = asyncio.Event()

            def opened(listen: str, admin: str) -> None:
                running.port = int(listen.rpartition(":")[2])
                running.admin_port = int(admin.rpartition(":")[2])
                ready.set()

            task = asyncio.ensure_future(running.server.run(opened))
            await asyncio.wait(
                [task, asyncio.ensure_future(ready.wait())], return_when="FIRST_COMPLETED"
            )
            try:
                while not running.server._clients.serving:
                    await asyncio.sleep(0.005)
                return await work(running)
            finally:
                for writer in running.writers:
                    writer.close()
                running.server.end()
                async with asyncio.timeout(60):
                    await task
                await asyncio.sleep(0.02)

    return uvloop.run(main())


async def until(holds: Callable[[], bool], most: float = 60.0) -> None:
    """Wait until something holds, and fail where it does not."""
    async with asyncio.timeout(most):
        while not holds():
            await asyncio.sleep(0.01)
