"""A model server that costs as little as can be: what is measured is what stands before it."""

from __future__ import annotations

import asyncio
import sys

import httptools
import numpy as np
import orjson
import uvloop

SCORES = {"name": "scores", "datatype": "FP32", "shape": [1, 10], "data": [0.1] * 10}
BODY = orjson.dumps({"model_name": "m", "outputs": [SCORES]})
METADATA = b'{"name":"server","version":"1","extensions":["binary_tensor_data"]}'
MODEL = b'{"name":"m","platform":"none","inputs":[],"outputs":[]}'


def answer(body: bytes) -> bytes:
    """An HTTP answer."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Server(asyncio.Protocol):
    """Answers each POST with the same scores; reads: turns the request into an array first."""

    def __init__(self, reads: bool) -> None:
        self.reads = reads

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"inference-header-content-length":
            self.length = int(value)

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        if self.parser.get_method() == b"GET":
            told = METADATA if self.url == b"/v2" else MODEL if b"ready" not in self.url else b""
            self.transport.write(answer(told))  # type: ignore[attr-defined]
            return
        if self.reads:
            body = b"".join(self.parts)
            told = orjson.loads(body[: self.length or None])["inputs"][0]
            if self.length:
                x = np.frombuffer(body, np.float32, offset=self.length)
            else:
                x = np.asarray(told["data"], np.float32)
            x.reshape(told["shape"]).mean()
        self.transport.write(answer(BODY))  # type: ignore[attr-defined]


async def main(port: int, reads: bool) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(reads), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2] == "reads"))
