"""Room for bodies: whoever may not ask takes up none of it, however long it sends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from guarding import Model, v2_body
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Reply, Running, X, read_reply, request, serving, until

from withstand.config import LimitsConfig
from withstand.guard import Answer, App, Guard, Line, Metrics, Request
from withstand.guard._intake import Intake, Upload
from withstand.guard.access import Access, Keys
from withstand.guard.serve import Connection, Door

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


@pytest.mark.parametrize("shown", [None, "right"])
def test_many_small_stalled_bodies_take_up_no_request_of_others(
    tmp_path: Path, shown: str | None
) -> None:
    async def work(guard: Running) -> None:
        pepper = guard.service.secrets.get("pepper")
        keys = Keys(tmp_path / "keys.json", pepper)
        key, other = keys.make("acme"), keys.make("else")
        guard.service.look_after()
        path = "/v2/models/m/infer"
        told = {"x_api_key": key} if shown else {}
        readers = []
        for _ in range(12):
            reader, writer = await guard.open()
            writer.write(stalled(path, length=100, **told))
            readers.append(reader)
        if shown:
            await until(lambda: guard.counted("in_flight") == 12)
        else:
            async with asyncio.timeout(20):
                assert {(await read_reply(one)).status for one in readers} == {401}
            assert guard.service.intake._held == 0
        content = request(BODY, path, x_api_key=other)
        assert (await answered(guard, guard.port, content)).status == 200

    serving(tmp_path, work, open=False, keys="keys.json", limits={"requests": 3})


def test_a_key_that_holds_most_of_the_memory_gives_way_to_others_and_not_to_itself(
    tmp_path: Path,
) -> None:
    async def work(guard: Running) -> None:
        keys = Keys(tmp_path / "keys.json", guard.service.secrets.get("pepper"))
        key, other = keys.make("acme"), keys.make("else")
        guard.service.look_after()
        path = "/v2/models/m/infer"
        readers = []
        for number in range(4):
            reader, writer = await guard.open()
            writer.write(stalled(path, x_api_key=key))
            readers.append(reader)
            await until(lambda n=number: guard.counted("in_flight") == n + 1)
        content = chunked(BODY, path, x_api_key=key)[:-5]
        assert (await answered(guard, guard.port, content)).status == 503
        assert (guard.refused("busy"), guard.refused("gave_way")) == (1, 0)
        content = chunked(BODY, path, x_api_key=other)
        _, writer = await guard.open()
        writer.write(content[:-5])
        async with asyncio.timeout(20):
            assert (await read_reply(readers[0])).status == 503
        assert guard.refused("gave_way") == 1
        assert guard.counted("in_flight") == 4
        assert guard.service.intake._held == 4 * 2**20

    serving(
        tmp_path, work, open=False, keys="keys.json",
        limits={"body": 2**20, "memory": 4 * 2**20},
    )  # fmt: skip


def test_who_holds_most_gives_way_its_oldest_first_and_its_own_only_when_that_is_late() -> None:
    intake, gone = Intake(body=10, memory=60, most=2), []

    def wait(owner: str, needed: int, now: float) -> Upload | None:
        return intake.wait(owner, needed, now, lambda: gone.append((owner, needed, now)))

    for now in range(3):
        assert wait("a", 10, now / 10)
    assert wait("b", 10, 0.3)
    assert wait("b", 10, 0.4)
    assert wait("c", 10, 0.5)
    assert wait("a", 10, 0.6) is None
    assert wait("c", 10, 0.7)
    assert gone == [("a", 10, 0.0)]
    # All have as much: who asks for more would have most.
    last = wait("b", 10, 1.2)
    assert last is None
    last = wait("b", 10, 1.3)
    assert last is not None
    assert gone == [("a", 10, 0.0), ("b", 10, 0.3)]
    assert (intake.now, intake._held) == (6, 60)
    assert intake.drop(last)
    assert not intake.drop(last)
    assert (intake.now, intake._held) == (5, 50)
    # Nobody gives way to what could not have room all the same.
    assert intake.enter(10)
    assert not intake.enter(1)
    assert intake.enter(0)
    assert wait("d", 0, 9.0) is None


def test_who_would_hold_as_much_as_another_does_not_drive_it_out() -> None:
    intake, gone = Intake(body=60, memory=60), []
    for owner in ("a", "a", "b"):
        assert intake.wait(owner, 20, 0.0, lambda: gone.append(0))
    assert intake.wait("b", 20, 0.5, lambda: gone.append(0)) is None
    assert gone == []


def test_one_of_several_keys_leaves_room_for_the_others(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        keys = Keys(tmp_path / "keys.json", guard.service.secrets.get("pepper"))
        key = keys.make("acme")
        guard.service.look_after()

        async def asked(shown: str, count: int) -> list[int]:
            found = [guard.infer(x_api_key=shown) for _ in range(count)]
            return sorted([one.status for one in await asyncio.gather(*found)])

        # While there is but one key, all is its.
        assert await asked(key, 4) == [200] * 4
        other = keys.make("else")
        guard.service.look_after()
        both = await asyncio.gather(asked(key, 4), asked(other, 1))
        assert both == [[200, 200, 200, 503], [200]]
        assert guard.refused("busy_key") == 1
        assert await asked(key, 3) == [200] * 3
        guard.rewrite(limits={"requests": 4, "requests_each": 1})
        await guard.service.reload()
        assert await asked(key, 3) == [200, 503, 503]
        assert guard.service.guard.access._under_way == {}

    serving(
        tmp_path, work, open=False, keys="keys.json", limits={"requests": 4},
        model=Model(pause=0.3),
    )  # fmt: skip


class Wire:
    """In the place of a socket's transport: whether it is open."""

    open = reading = True

    def write(self, content: bytes) -> None:
        assert self.open

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.open = False

    abort = close

    def is_closing(self) -> bool:
        return not self.open


def test_connections_give_way_in_order_and_none_that_is_being_answered() -> None:
    async def main() -> None:
        free = asyncio.Event()

        async def answer(asked: Request) -> Answer:
            if asked.body:
                await free.wait()
            return Answer(200, [], b"")

        opened = Door(answer, Intake(), LimitsConfig(), Metrics(), most=4)
        sent = {
            "answered": request(b"1"), "body": request(b"1")[:-1], "idle": request(),
            "head": request()[:9], "later": b"", "last": b"", "one more": b"",
        }  # fmt: skip
        wires, connections = {}, {}
        for name, content in sent.items():
            wires[name], connections[name] = Wire(), Connection(opened)
            connections[name].connection_made(wires[name])  # type: ignore[arg-type]
            connections[name].data_received(content)
            # In the order of their times, which the loop takes only once a turn.
            await asyncio.sleep(0.002)
            for other, wire in wires.items():
                if not wire.open and connections[other] in opened.connections:
                    connections[other].connection_lost(None)
        left = [name for name, wire in wires.items() if wire.open]
        # Four at a time: head, later and last gave way, in this order.
        assert left == ["answered", "body", "idle", "one more"]
        connections["one more"].data_received(request(b"1"))
        wires["other"], connections["other"] = Wire(), Connection(opened)
        connections["other"].connection_made(wires["other"])  # type: ignore[arg-type]
        connections["idle"].connection_lost(None)
        left[2] = "other"
        assert {name for name, wire in wires.items() if wire.open} == set(left)
        connections["body"].data_received(b"1")
        connections["other"].data_received(request(b"1"))
        await asyncio.sleep(0)
        assert opened.metrics.counts["refused"] == {("gave_way",): 4}
        wire, connection = Wire(), Connection(opened)
        connection.connection_made(wire)  # type: ignore[arg-type]
        assert not wire.open
        assert all(wires[name].open for name in left)
        assert opened.metrics.counts["refused"][("connections",)] == 1
        free.set()
        await asyncio.sleep(0.01)
        for one in list(opened.connections):
            one.connection_lost(None)
        assert (opened.intake.now, opened.intake._held) == (0, 0)

    asyncio.run(main())


def test_whoever_does_not_read_gives_way_only_when_its_answer_is_there() -> None:
    async def main() -> None:
        free = asyncio.Event()

        async def answer(asked: Request) -> Answer:
            await free.wait()
            return Answer(200, [], b"")

        opened = Door(answer, Intake(), LimitsConfig(), Metrics(), most=1)
        wires = [Wire() for _ in range(3)]
        ones = [Connection(opened) for _ in wires]
        ones[0].connection_made(wires[0])  # type: ignore[arg-type]
        ones[0].pause_writing()
        ones[0].data_received(request(b"1"))
        ones[1].connection_made(wires[1])  # type: ignore[arg-type]
        assert [wire.open for wire in wires[:2]] == [True, False]
        ones[1].connection_lost(None)
        free.set()
        await asyncio.sleep(0.01)
        ones[2].connection_made(wires[2])  # type: ignore[arg-type]
        assert [wires[0].open, wires[2].open] == [False, True]
        assert opened.metrics.counts["refused"] == {("connections",): 1, ("gave_way",): 1}
        assert opened.intake.now == 0

    asyncio.run(main())


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["open", "some", "rest", "leave", "late", "free", "stop", "read"]),
        st.integers(0, 5),
        st.integers(1, 90),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(acts=ACTS)
def test_whatever_clients_do_the_room_is_kept_and_all_of_it_comes_back(
    acts: list[tuple[str, int, int]],
) -> None:
    """Six places at which connections are opened, send some bytes, stall, do not read, or leave."""

    async def main() -> None:
        free, answered = asyncio.Event(), []

        async def answer(asked: Request) -> Answer:
            answered.append(asked.body)
            await free.wait()
            return Answer(200, [], b"")

        def owner(head: Request) -> Answer | str:
            number = int(head.path[1:])
            return Answer(401, [], b"") if number == 5 else str(number % 2)

        intake = Intake(body=60, memory=100, most=2)
        door = Door(answer, intake, LimitsConfig(), Metrics(), most=3, owner=owner)
        wires: dict[int, Wire] = {}
        ones: dict[int, Connection] = {}
        left: dict[int, bytes] = {}

        async def lose() -> None:
            await asyncio.sleep(0)
            for place in [place for place, wire in wires.items() if not wire.open]:
                ones.pop(place).connection_lost(None)
                del wires[place]

        for what, place, size in acts:
            one = ones.get(place)
            if what == "open" and one is None:
                wires[place], ones[place] = Wire(), Connection(door)
                content = request(b"x" * size, f"/{place}")
                left[place] = content + request(b"y" * 7, f"/{place}")
                ones[place].connection_made(wires[place])  # type: ignore[arg-type]
            elif what == "free":
                free.set()
            elif one is not None and what in ("some", "rest"):
                count = size if what == "some" else len(left[place])
                if wires[place].reading:
                    one.data_received(left[place][:count])
                    left[place] = left[place][count:]
            elif one is not None and what == "leave":
                wires[place].open = False
            elif one is not None and what == "late":
                one.sweep(asyncio.get_running_loop().time() + 2 * size)
            elif one is not None and what == "stop":
                one.pause_writing()
            elif one is not None and what == "read":
                one.resume_writing()
            assert 0 <= intake._held <= intake.memory
            assert 0 <= intake._answered <= intake.most
            assert len(door.tasks) <= intake._answered <= intake.now
            await lose()
            assert len(door.connections) <= door.most
        free.set()
        while door.tasks:
            await asyncio.sleep(0)
        await lose()
        for wire in wires.values():
            wire.open = False
        await lose()
        assert (intake.now, intake._answered, intake._held) == (0, 0, 0)
        assert (intake._uploads, door.connections) == ({}, set())
        assert door.metrics.counts["refused"]["defect",] == 0

    asyncio.run(main())


def test_an_applications_bodies_that_stall_take_up_no_request_and_have_an_end() -> None:
    guard = Guard({"": Line(mode="enforce", upstream=Model())})
    app = App(guard, most=1, patience=0.05)

    async def ask(stalls: bool) -> int:
        said: list[Any] = []

        async def receive() -> Any:
            if stalls:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http", "method": "POST", "raw_path": b"/v2/models/m/infer",
            "query_string": b"", "headers": [(b"content-length", b"%d" % len(BODY))],
        }  # fmt: skip
        await app(scope, receive, send)
        return int(said[0]["status"])

    async def main() -> list[int]:
        async with asyncio.timeout(20):
            stalling = [asyncio.ensure_future(ask(True)) for _ in range(3)]
            await asyncio.sleep(0)
            return [await ask(False), *await asyncio.gather(*stalling)]

    assert asyncio.run(main()) == [200, 408, 408, 408]
    assert (app.intake.now, app.intake._held) == (0, 0)


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
