"""A detector in the path of requests: how many are too late, and what it does to the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import orjson
from measure import Rows
from networks import mnist, network

from withstand import detect
from withstand.guard import Answer, Guard, Line, Request, Rule
from withstand.guard._reading import Reading
from withstand.guard.detectors import DetectorSensor
from withstand.guard.rules import Input, Range, Schema
from withstand.models import TorchModel

SECONDS, DEADLINE, TICK = 10.0, 0.05, 0.002
RATES = (250, 500)


class Stub:
    """In the place of a model server: ten scores, at once."""

    def __init__(self) -> None:
        output = {"name": "p", "datatype": "FP32", "shape": [1, 10], "data": [0.1] * 10}
        self.answer = Answer(200, [], orjson.dumps({"outputs": [output]}))

    async def ask(self, *words: Any) -> Answer:
        """The same, whatever is asked."""
        return self.answer

    def close(self) -> None:
        """Nothing is held."""


class Run(NamedTuple):
    """Seconds of each request and of each tick beyond its own, CPU seconds, and failures."""

    waited: list[float]
    delays: list[float]
    cpu: float
    failed: dict[str, int]


def in_line() -> Rows:
    """A detector in line on one core: late scores and what others wait, Poisson arrivals.

    Requests of 28x28 as JSON straight to the guard, with schema and range, for 10 seconds each;
    guard, detector and load are in one process on one core, and a deadline of 50 ms. Late, busy: no
    score in time, or too much in the queue. Delay: by how much the event loop wakes up too late.
    CPU: of the process for each request, the load included. A machine with other work lets all
    wait longer: compare with none.
    """
    bodies = [_body(image) for image in mnist("test", 2000)[0].numpy()]
    calibrated = _detector()
    rows: Rows = []
    for name, gather in (("none", None), ("gathers 1 ms", 0.001), ("gathers nothing", 0.0)):
        for rate in RATES:
            with _one_core():
                found = asyncio.run(_run(bodies, rate, calibrated, gather))
            rows.append(
                {
                    "Mahalanobis": name,
                    "requests/s": rate,
                    "requests": len(found.waited),
                    "late": found.failed["timeout"],
                    "busy": found.failed["busy"],
                    "p50, ms": _ms(found.waited, 50),
                    "p99, ms": _ms(found.waited, 99),
                    "delay p50, ms": _ms(found.delays, 50),
                    "delay p99, ms": _ms(found.delays, 99),
                    "CPU us a request": round(1e6 * found.cpu / len(found.waited)),
                }
            )
            print(rows[-1], flush=True)
    return rows


async def _run(
    bodies: list[bytes], rate: int, detector: detect.Detector, gather: float | None
) -> Run:
    guard = _guard(detector, gather)
    waited: list[float] = []
    delays: list[float] = []
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * SECONDS)))
    ticking = asyncio.create_task(_tick(delays))
    began, cpu, tasks = time.perf_counter(), time.process_time(), []
    for number, due in enumerate(arrivals):
        # Who came late still counts from when it was due.
        while (ahead := began + due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        one = _ask(guard, bodies[number % len(bodies)], began + due, waited)
        tasks.append(asyncio.create_task(one))
    await asyncio.gather(*tasks)
    spent = time.process_time() - cpu
    ticking.cancel()
    guard.close()
    return Run(waited, delays, spent, {why: _failures(guard, why) for why in ("timeout", "busy")})


async def _ask(guard: Guard, body: bytes, due: float, waited: list[float]) -> None:
    answer = await guard.answer(Request("POST", "/v2/models/m/infer", [], body))
    assert answer.status == 200
    waited.append(time.perf_counter() - due)


async def _tick(delays: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        delays.append(time.perf_counter() - before - TICK)


def _guard(detector: detect.Detector, gather: float | None) -> Guard:
    schema = Schema(inputs=(Input(name="x", datatype="FP32", shape=(-1, 1, 28, 28)),))
    rules: list[tuple[str, Callable[..., Any]]] = [
        ("schema", schema), ("range", Range(limits={"x": (0, 1)})),
    ]  # fmt: skip
    sensors = () if gather is None else (
        DetectorSensor(
            lambda: detector, reading=Reading(shape=(1, 28, 28)), deadline=DEADLINE, gather=gather
        ),
    )  # fmt: skip
    line = Line(
        mode="enforce",
        upstream=Stub(),
        rules=tuple(Rule(name=name, apply=apply) for name, apply in rules),
        sensors=sensors,
    )
    return Guard({"m": line})


def _detector() -> detect.Detector:
    model = TorchModel(network("standard").eval())
    x, y = mnist("train", 6000)
    return detect.fit(detect.Mahalanobis(), model, x[:3000], y[:3000]).calibrate(x[3000:])


def _body(image: Any) -> bytes:
    told = {"name": "x", "datatype": "FP32", "shape": [1, 1, 28, 28]}
    return orjson.dumps({"inputs": [{**told, "data": image.ravel().tolist()}]})


def _failures(guard: Guard, why: str) -> int:
    labels = {"sensor": "detector", "why": why}
    name = "withstand_sensor_failures_total"
    return int(guard.metrics.registry.get_sample_value(name, labels) or 0)


def _ms(seconds: list[float], percent: float) -> float:
    return round(1e3 * float(np.percentile(seconds, percent)), 2)


@contextmanager
def _one_core() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    # The last one, as the first serves interrupts.
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
