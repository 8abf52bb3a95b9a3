"""A small model behind the guard, and the guard on a real socket."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvicorn
from PIL import Image

from withstand.guard import Access, Answer, App, Guard, Key, Line, Request, wire
from withstand.guard.wire import Limits, read_rows, read_v2

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIGURED = """
guard:
  upstream: http://127.0.0.1:9
  open: true
  evidence: {folder: evidence, required: true}
  models:
    m: {mode: enforce}
"""
WEIGHTS = np.random.default_rng(0).standard_normal((4, 3))


class Named(Access):
    """Lets in whoever is set."""

    key = Key(id="k", tenant="t")

    def __init__(self) -> None:
        super().__init__(None)

    def admit(self, request: Request) -> Any:
        return self.key, []


class Model:
    """A linear model of four numbers and three classes, in the place of a server."""

    def __init__(self, *, pause: float = 0.0) -> None:
        self.pause = pause
        self.seen: list[tuple[str, str, list[tuple[bytes, bytes]], bytes]] = []
        self.closed = False

    async def ask(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> Answer:
        self.seen.append((method, target, headers, body))
        await asyncio.sleep(self.pause)
        told = [(b"content-type", b"application/json")]
        if method == "GET":
            return Answer(200, told, b"{}")
        length = dict(headers).get(b"inference-header-content-length")
        if target.endswith("/infer"):
            asked = read_v2(body, length.decode() if length else None, Limits())
            return Answer(200, told, v2_answer(scores(asked.inputs[0].values), asked.id))
        asked = read_rows(body, "mlflow" if target == "/invocations" else "v1", Limits())
        found = scores(asked.inputs[0].values)
        return Answer(200, told, orjson.dumps({"predictions": found.tolist()}))

    def close(self) -> None:
        self.closed = True


def scores(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found = np.exp(x.reshape(len(x), -1)[:, :4].astype(float) @ WEIGHTS)
    return np.asarray(found / found.sum(1, keepdims=True))


def v2_answer(found: np.ndarray[Any, Any], identity: str = "") -> bytes:
    output = {
        "name": "probabilities", "datatype": "FP64", "shape": list(found.shape),
        "data": found.ravel().tolist(),
    }  # fmt: skip
    return orjson.dumps({"model_name": "m", "id": identity, "outputs": [output]})


def v2_body(x: Any, **more: Any) -> bytes:
    x = np.asarray(x, np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    return orjson.dumps({"inputs": [tensor], **more})


def pictures(*contents: bytes) -> wire.Inference:
    """A request of pictures as files."""
    values = np.array([*contents, None], dtype=object)[:-1]
    named = wire.Named(name="x", datatype="BYTES", values=values, parameters={})
    return wire.Inference(id="", inputs=(named,), parameters={})


def as_file(picture: Any, form: str) -> bytes:
    """The bytes of a picture's file, such as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form)
    return file.getvalue()


def guarded(upstream: Any, **line: Any) -> Guard:
    return Guard({"m": Line(upstream=upstream, **{"mode": "enforce", **line})})


@contextmanager
def served(app: App) -> Iterator[int]:
    """The port of an application on loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    until = time.monotonic() + 10
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
