"""A network behind the guard, in one process, and clients who ask it."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import numpy as np
import orjson
import torch
from detectors import parts
from networks import DATA, mnist, network
from numpy.typing import NDArray
from torch import nn

from withstand.guard import Access, Answer, Guard, Key, Ladder, Line, Request, Standing
from withstand.guard.queries import (
    Calibration,
    QuerySensor,
    SearchSensor,
    SpectrumSensor,
    calibrate,
)
from withstand.guard.wire import Limits, read_v2

Array = NDArray[Any]

LENGTH = b"inference-header-content-length"
CALIBRATED = {"mnist": 40_000, "cifar10": 16_000}


class Network:
    """A network in the place of a model server; its scores are probabilities."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.asked = net, 0

    async def ask(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> Answer:
        """The answer to an inference."""
        x = read_v2(body, dict(headers)[LENGTH].decode(), Limits()).inputs[0].values
        with torch.no_grad():
            found = self.net(torch.from_numpy(x.copy())).softmax(1).numpy()
        self.asked += len(x)
        output = {
            "name": "p", "datatype": "FP32", "shape": found.shape, "data": found.ravel().tolist()
        }  # fmt: skip
        told = [(b"content-type", b"application/json")]
        return Answer(200, told, orjson.dumps({"model_name": "m", "outputs": [output]}))

    def close(self) -> None:
        """Nothing is held open."""


class Anybody(Access):
    """Lets in whoever says who it is: tenant, key, and whether it is a declared optimiser."""

    def __init__(self) -> None:
        super().__init__(None)

    def admit(self, request: Request) -> tuple[Key, list[tuple[bytes, bytes]]]:
        """The key that the client names."""
        tenant, key, declared = dict(request.headers)[b"x-api-key"].decode().split("/")
        return Key(id=f"{tenant}/{key}", tenant=tenant, benign_optimiser=declared == "1"), []


class Flags:
    """A journal that keeps only which sensors flagged the last request."""

    required = failing = False
    last: frozenset[str] = frozenset()

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Any) -> bool:
        """Keep the flags."""
        self.last = frozenset(one[0] for one in content.get("signals", ()) if one[3])
        return True

    def close(self) -> None:
        """Nothing is held open."""


class Guarded:
    """A network behind the guard: `ask` is one request of a client, all the way through.

    line: as for Line; without a calibration nothing watches.
    """

    def __init__(
        self,
        net: nn.Module,
        calibration: Calibration | None,
        *,
        actions: tuple[str, str] = ("tag", "tag"),
        ladder: Ladder | None = None,
        **line: Any,
    ) -> None:
        sensors: tuple[Any, ...] = ()
        if calibration is not None:
            queries = QuerySensor(calibration, action=actions[0])
            sensors = (queries, SearchSensor(queries, action=actions[1]))
            if calibration.spectrum is not None:
                sensors = (*sensors, SpectrumSensor(calibration, action=actions[0]))
        self.journal = Flags()
        self.upstream = Network(net)
        told = {"mode": "shadow", "raw": True, "sensors": sensors, "delay": 0.0, **line}
        standing = Standing(ladder or Ladder())
        self.guard = Guard(
            {"m": Line(upstream=self.upstream, standing=standing, **told)},
            access=Anybody(),
            journal=self.journal,
        )
        self._loop = asyncio.new_event_loop()

    def ask(
        self, x: Array, tenant: str = "t", key: str = "k", *, declared: bool = False
    ) -> Array | None:
        """Scores (B, K) of inputs, None where they are refused."""
        x = np.ascontiguousarray(x, np.float32)
        tensor = {
            "name": "x", "datatype": "FP32", "shape": x.shape,
            "parameters": {"binary_data_size": x.nbytes},
        }  # fmt: skip
        head = orjson.dumps({"inputs": [tensor]})
        headers = [
            (b"x-api-key", f"{tenant}/{key}/{int(declared)}".encode()),
            (LENGTH, str(len(head)).encode()),
        ]
        request = Request("POST", "/v2/models/m/infer", headers, head + x.tobytes())
        answer = self._loop.run_until_complete(self.guard.answer(request))
        if answer.status in (403, 429):
            return None
        assert answer.status == 200, answer
        (output,) = orjson.loads(answer.body)["outputs"]
        return np.reshape(output["data"], output["shape"]).astype(np.float32)

    @property
    def flags(self) -> frozenset[str]:
        """The sensors that flagged the last request."""
        return self.journal.last

    def close(self) -> None:
        """Let go of the loop."""
        self.guard.close()
        self._loop.close()


@cache
def images(data: str) -> Array:
    """All images (N, C, H, W) of MNIST or CIFAR-10, training images first."""
    if data == "mnist":
        return np.concatenate([mnist(part)[0].numpy() for part in ("train", "test")])
    with np.load(DATA / f"{data}.npz") as file:
        x = np.concatenate([file["x_train"], file["x_test"]])
    return x.transpose(0, 3, 1, 2).astype(np.float32) / 255


@cache
def calibrated(data: str) -> Calibration:
    """From the first training images: 40,000 of MNIST, 16,000 of CIFAR-10."""
    return calibrate(images(data)[: CALIBRATED[data]], seed=1)


@cache
def victim(data: str, name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network, and test images that it gets right with their labels."""
    if data == "mnist":
        net, (x, y) = network(name), mnist("test", 1000, 500)
    else:
        found = parts(data, name)
        net, (x, y) = found.net, (found.tested[0][:1000], found.tested[1][:1000])
    with torch.no_grad():
        right = net(x).argmax(1) == y
    return net, x[right], y[right]
