"""A guard in a process of its own under load: how fast it rolls back, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from guarding import Model, v2_body
from processes import started
from serving import model_server, read_reply, request, until

from withstand.evidence.log import Break, read
from withstand.guard import Answer, Secrets

pytestmark = pytest.mark.slow


class Timed(Model):
    """A model server that knows when it was asked, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.failing = False

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        if method == "POST":
            self.asked.append(time.time())
        answer = await super().ask(method, target, headers, body)
        self.seen.clear()
        return Answer(500, answer.headers, b"{}") if self.failing and method == "POST" else answer


class Load:
    """Clients that ask a guard one request after the other, and what they were answered."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.statuses, self.stopped = port, [], False
        self.token = Secrets(folder / "withstand-secrets").get("token").hex()
        self.tasks = [asyncio.ensure_future(self._client(seed)) for seed in range(8)]

    statuses: list[int]

    async def _client(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self.stopped:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                while not self.stopped:
                    writer.write(request(v2_body(rng.random((1, 4)))))
                    self.statuses.append((await read_reply(reader)).status)
                    if not self.statuses[-1]:
                        break
                writer.close()
            except OSError:
                await asyncio.sleep(0.02)

    async def change(self, admin: int, path: str, **told: str) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", admin)
        body, bearer = json.dumps(told).encode(), f"Bearer {self.token}"
        writer.write(request(body, path, authorization=bearer))
        reply = await read_reply(reader)
        writer.close()
        return reply.json

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.gather(*self.tasks)


async def serving_at(said: Callable[[], str]) -> tuple[int, int]:
    """The two ports, once they are open."""
    await until(lambda: "operators at" in said())
    line = next(line for line in said().splitlines() if "operators at" in line)
    return tuple(
        int(word.rstrip(",").rpartition(":")[2]) for word in line.split() if "http" in word
    )  # type: ignore[return-value]


def loaded(folder: Path, work: Callable[[Load, int, Timed], Awaitable[None]]) -> None:
    """Start a guard with a canary at half of the traffic under load, and do something with it."""

    async def main() -> None:
        stable, new = Timed(), Timed()
        async with model_server(stable) as first, model_server(new) as second:
            canary = {"upstream": f"http://127.0.0.1:{second}", "steps": [50, 100]}
            guard = {
                "upstream": f"http://127.0.0.1:{first}", "listen": "127.0.0.1:0", "mode": "enforce",
                "admin": "127.0.0.1:0", "open": True, "canary": canary,
                "evidence": {"folder": "evidence", "inputs": "none"},
            }  # fmt: skip
            (folder / "withstand.yaml").write_text(yaml.safe_dump({"guard": guard}))
            with started("guard", "serve", folder=folder) as (_, said):
                port, admin = await serving_at(said)
                load = Load(port, folder)
                await load.change(admin, "/canary/start", who="ann", why="")
                await until(lambda: len(new.asked) > 200)
                await work(load, admin, new)
                await load.stop()

    asyncio.run(main())


def decided(folder: Path) -> float:
    """When the guard wrote down that it rolled back."""
    (found,) = [
        place.record.wall
        for place in read(folder / "evidence")
        if not isinstance(place, Break)
        and place.record.kind == "canary"
        and place.record.content["state"] == "rolled_back"
    ]
    return float(found)


@pytest.mark.parametrize("cause", ["failures", "probes", "order"])
def test_under_load_the_last_request_comes_within_a_second_of_the_decision(
    tmp_path: Path, cause: str
) -> None:
    seen: list[float] = []

    async def work(load: Load, admin: int, new: Timed) -> None:
        began = len(load.statuses)
        if cause == "failures":
            new.failing = True
        elif cause == "probes":
            counts = {"tried": "400", "both": "20", "canary": "60", "control": "0"}
            told = await load.change(admin, "/canary/outcomes", arm="pairs", source="a", **counts)
            assert told["state"] == "rolled_back"
        else:
            told = await load.change(admin, "/canary/rollback", who="ann", why="a try")
            assert (told["state"], told["weight"]) == ("rolled_back", 0)
        await asyncio.sleep(1.5)
        seen.extend(new.asked)
        assert len(load.statuses) - began > 100
        # Clients notice nothing but the failures that it took.
        assert sum(status != 200 for status in load.statuses) <= (20 if cause == "failures" else 0)

    loaded(tmp_path, work)
    after = max(seen) - decided(tmp_path)
    assert after < 1.0, f"{1e3 * after:.1f} ms after the decision"


def test_a_kill_in_the_middle_of_a_step_leaves_the_weight_or_less(tmp_path: Path) -> None:
    async def main() -> None:
        stable, new = Timed(), Timed()
        async with model_server(stable) as first, model_server(new) as second:
            canary = {
                "upstream": f"http://127.0.0.1:{second}", "step_seconds": 0.01, "alpha": 0.4,
                "steps": [1, *range(10, 100, 5), 100],
                "compare": {"errors": {"least": 1, "more": 0.9, "most": 1}},
            }  # fmt: skip
            guard = {
                "upstream": f"http://127.0.0.1:{first}", "listen": "127.0.0.1:0", "open": True,
                "admin": "127.0.0.1:0", "mode": "enforce", "canary": canary,
            }  # fmt: skip
            (tmp_path / "withstand.yaml").write_text(yaml.safe_dump({"guard": guard}))
            before, highest = -1.0, 0.0
            for turn in range(4):
                with started("guard", "serve", folder=tmp_path) as (pid, said):
                    port, admin = await serving_at(said)
                    load = Load(port, tmp_path)

                    async def weight(admin: int = admin) -> float:
                        reader, writer = await asyncio.open_connection("127.0.0.1", admin)
                        writer.write(request(path="/canary", method="GET"))
                        told = (await read_reply(reader)).json["models"]["*"]
                        writer.close()
                        return float(told["weight"])

                    if turn:
                        assert await weight() == before
                    else:
                        await load.change(admin, "/canary/start", who="ann", why="")
                    began = await weight()
                    while await weight() == began:
                        await asyncio.sleep(0.005)
                    # What it served last is on the disk, or it is what was there before.
                    os.kill(pid, signal.SIGKILL)
                    state = tmp_path / "withstand-guard" / "canary.json"
                    (kept,) = json.loads(state.read_text()).values()
                    before = kept["weight"]
                    assert before > highest
                    highest = before
                    await load.stop()

    asyncio.run(main())
