"""An endpoint that takes its time: what an attack over HTTP costs beyond the round trips."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from aiohttp import web
from measure import Rows, timed

from withstand import attacks
from withstand.models import HttpModel, HttpSettings
from withstand.threat import Linf, Threat

SAMPLES, QUERIES, DELAY = 32, 1000, 0.05
SHAPES = ((1, 28, 28), (3, 32, 32))


class Recorded(NamedTuple):
    """One request of the attack, to be sent again as it was."""

    path: str
    headers: dict[str, str]
    body: bytes


def endpoint() -> Rows:
    """1,000 queries of Square on 32 samples over an endpoint that answers after 50 ms."""
    rows: Rows = []
    for shape in SHAPES:
        x = torch.rand(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))
        formats: tuple[Literal["v2", "v2-binary"], ...] = ("v2", "v2-binary")
        for name in formats:
            with _server() as port:
                model = HttpModel(f"http://127.0.0.1:{port}", HttpSettings(format=name, name="m"))
                model.scores(x)
                threat = Threat(region=Linf(0.05), access="scores", queries=QUERIES)
                y = torch.zeros(SAMPLES, dtype=torch.long)
                attack = partial(attacks.run, attacks.Square(), model, x, y, threat)
                spent = timed(attack)
                trips = (model.sent - SAMPLES) // SAMPLES
                bare = timed(partial(_bare, port, _recorded(port), trips))
                model.close()
            rows.append(
                {
                    "input": "x".join(map(str, shape)),
                    "format": name,
                    "round trips": trips,
                    "wall s, attack": round(spent.wall, 2),
                    "wall s, bare round trips": round(bare.wall, 2),
                    "ratio": round(spent.wall / bare.wall, 3),
                    "CPU ms a query, attack": round(1000 * spent.cpu / trips, 2),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _bare(port: int, request: Recorded, trips: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(trips):
        connection.request("POST", request.path, request.body, request.headers)
        connection.getresponse().read()
    connection.close()


def _recorded(port: int) -> Recorded:
    """The last request that the server has seen."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/last")
    response = connection.getresponse()
    kept = {"Content-Type", "Inference-Header-Content-Length"}
    headers = {name: value for name, value in response.getheaders() if name in kept}
    found = Recorded(response.headers["X-Path"], headers, response.read())
    connection.close()
    return found


@contextmanager
def _server() -> Iterator[int]:
    """The port of a server in a process of its own, which does not share our interpreter's lock."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def _serve() -> None:
    """Answer every request after the delay with scores by which class 0 is always right."""
    import orjson

    scores = np.zeros((SAMPLES, 10), np.float32)
    scores[:, 0] = 1
    output = {"name": "scores", "datatype": "FP32", "shape": list(scores.shape)}
    plain = orjson.dumps({"outputs": [{**output, "data": scores.reshape(-1).tolist()}]})
    output["parameters"] = {"binary_data_size": scores.nbytes}
    head = orjson.dumps({"outputs": [output]})
    length = "Inference-Header-Content-Length"
    last: list[tuple[web.Request, bytes]] = []

    async def infer(request: web.Request) -> web.Response:
        last[:] = [(request, await request.read())]
        await asyncio.sleep(DELAY)
        if length in request.headers:
            return web.Response(body=head + scores.tobytes(), headers={length: str(len(head))})
        return web.Response(body=plain, content_type="application/json")

    async def seen(request: web.Request) -> web.Response:
        (asked, body) = last[0]
        told = {k: v for k, v in asked.headers.items() if k in ("Content-Type", length)}
        return web.Response(body=body, headers={**told, "X-Path": asked.path})

    async def run() -> None:
        app = web.Application(client_max_size=2**30)
        app.add_routes([web.post("/v2/models/m/infer", infer), web.get("/last", seen)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        # The one who started us ends us, or goes away and closes our input.
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


if __name__ == "__main__":
    _serve()
