"""Room for bodies: whoever may not ask takes up none of it, however long it sends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from guarding import Model, v2_body
from serving import Reply, Running, X, read_reply, request, serving

from withstand.guard import App, Guard, Line
from withstand.guard.access import Access, Keys

BODY = v2_body(X)
LONG = 70_000


def stalled(path: str, method: str = "POST", length: int | None = None, **headers: str) -> bytes:
    """A request of whose body only the beginning comes; in chunks where there is no length."""
    whole = request(path=path, method=method, **headers)
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return whole.replace(b"content-length: 0", framing) + b"1\r\n "


def chunked(content: bytes, path: str, **headers: str) -> bytes:
    head = stalled(path, **headers).removesuffix(b"1\r\n ")
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


async def answered(guard: Running, port: int, content: bytes) -> Reply:
    """What is answered while the connection stays open."""
    reader, writer = await guard.open(port)
    writer.write(content)
    async with asyncio.timeout(20):
        return await read_reply(reader)


@pytest.mark.parametrize("length", [None, 32 * 2**20])
def test_uploads_without_the_token_leave_the_operators_their_room(
    tmp_path: Path, length: int | None
) -> None:
    async def work(guard: Running) -> None:
        port, bearer = guard.admin_port, f"Bearer {guard.service.token}"
        for content, status in (
            (stalled("/kill", length=length), 401),
            (stalled("/events?a", length=length, authorization="Bearer x"), 401),
            (stalled("/%6bill", length=length), 401),
            (stalled("/status", "GET", length), 413),
            (stalled("/status", length=length), 405),
            (stalled("/nothing", length=length), 404),
            (stalled("/kill", length=length, host="evil.example"), 421),
        ):
            assert (await answered(guard, port, content)).status == status
        assert guard.server._beside[0].door.intake._held == 0
        # Those that may ask are given room, and no more than there is.
        told = json.dumps({"who": "me", "why": "a drill"}).encode()
        for _ in range(3):
            content = chunked(told, "/kill", authorization=bearer)
            assert (await answered(guard, port, content)).status == 200
        for _ in range(2):
            (await guard.open(port))[1].write(stalled("/kill", authorization=bearer))
        content = chunked(told, "/kill", authorization=bearer)
        await asyncio.sleep(0.05)
        assert (await answered(guard, port, content)).status == 503

    serving(tmp_path, work)


def test_controllers_have_room_however_many_uploads_stall(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        door = guard.server._beside[1].door
        port = guard.server._sockets[2].getsockname()[1]
        for _ in range(40):
            (await guard.open(port))[1].write(stalled("/analysis/m/passed"))
        async with asyncio.timeout(20):
            while door.intake.now < 40:
                await asyncio.sleep(0.01)
        bearer = f"Bearer {guard.service.analysis_token}"
        content = chunked(b"{}", "/analysis/m/passed", authorization=bearer)
        # There is no canary, and that is the answer.
        assert (await answered(guard, port, content)).status == 404
        assert (await answered(guard, port, stalled("/analysis/m", length=LONG))).status == 413

    serving(tmp_path, work, analysis="127.0.0.1:0")


@pytest.mark.parametrize("length", [None, 2**20])
def test_uploads_without_a_key_leave_the_clients_their_room(
    tmp_path: Path, length: int | None
) -> None:
    async def work(guard: Running) -> None:
        pepper = guard.service.secrets.get("pepper")
        key = Keys(tmp_path / "keys.json", pepper).make("acme")
        guard.service.look_after()
        path = "/v2/models/m/infer"
        for content, status in (
            (stalled(path, length=length), 401),
            (stalled(path, length=length, x_api_key="ws_" + "a" * 43), 401),
            (stalled("/v2/models/m", "GET", length), 401),
            (stalled("/v2/models/m", "GET", length, x_api_key=key), 413),
            (stalled("/v2/health/live", "GET", length), 413),
            (stalled("/nothing", length=length), 404),
        ):
            assert (await answered(guard, guard.port, content)).status == status
        assert guard.service.intake._held == 0
        content = chunked(BODY, path, x_api_key=key)
        assert (await answered(guard, guard.port, content)).status == 200
        assert guard.refused("key") == 3
        assert guard.counted("requests_total", model="", tenant="", status="401") == 3

    serving(tmp_path, work, open=False, keys="keys.json", limits={"body": 2**20, "memory": 2**20})


def test_whoever_is_refused_by_its_head_may_ask_again_when_all_has_come(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        reader, writer = await guard.open(guard.admin_port)
        writer.write(request(b"x" * LONG, "/kill"))
        writer.write(request(path="/health/live", method="GET"))
        found = [(await read_reply(reader)).status for _ in range(2)]
        assert found == [401, 200]

    serving(tmp_path, work)


def test_an_application_does_not_wait_for_long_bodies_without_a_key(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", b"p" * 16)
    shown = keys.make("acme").encode()
    guard = Guard({"": Line(mode="enforce", upstream=Model())}, access=Access(keys))
    said: list[Any] = []

    async def ask(*more: tuple[bytes, bytes]) -> int:
        async def receive() -> Any:
            assert more, "the body was asked for"
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http", "method": "POST", "raw_path": b"/v2/models/m/infer",
            "query_string": b"", "headers": [(b"transfer-encoding", b"chunked"), *more],
        }  # fmt: skip
        said.clear()
        await App(guard)(scope, receive, send)
        return int(said[0]["status"])

    assert asyncio.run(ask()) == 401
    assert asyncio.run(ask((b"x-api-key", shown))) == 200
