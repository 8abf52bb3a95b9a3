"""HTTP on the guard's ports: whatever the pieces in which it comes, and whatever its order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from guarding import Model, v2_body
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Running, X, read_reply, request, serving, until

from withstand.config import LimitsConfig
from withstand.guard import Answer, Metrics, Request, UpstreamError
from withstand.guard._intake import Intake
from withstand.guard.serve import Connection, Door
from withstand.guard.serve._head import HeadError, answer_head, body_length
from withstand.guard.upstream._turns import Deadlines, Slots

DATE = b"date: now"
BODY = v2_body(X)


class Wire:
    """In the place of a socket's transport: what was written, and whether it is open."""

    def __init__(self) -> None:
        self.said = b""
        self.open = self.reading = True

    def write(self, content: bytes) -> None:
        assert self.open
        self.said += content

    def close(self) -> None:
        self.open = False

    abort = close

    def is_closing(self) -> bool:
        return not self.open

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def echo(asked: Request) -> Answer:
    await asyncio.sleep(0)
    told = b"%d %b %b" % (len(asked.headers), asked.path.encode("latin-1"), asked.body[:9])
    return Answer(200, [(b"x-method", asked.method.encode())], told)


def door(answer: Callable[[Request], Awaitable[Answer]] = echo, **intake: Any) -> Door:
    found = Door(answer, Intake(**intake), LimitsConfig(), Metrics(), most=10)
    found.date = DATE
    return found


async def spoken(pieces: list[bytes], opened: Door) -> bytes:
    """What a connection says to pieces that come one after the other, while it reads."""
    wire, connection = Wire(), Connection(opened)
    connection.connection_made(wire)  # type: ignore[arg-type]
    for piece in pieces:
        for _ in range(200):
            if wire.reading:
                break
            await asyncio.sleep(0)
        if not wire.open:
            break
        connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    assert (opened.intake.now, opened.intake._held, opened.tasks) == (0, 0, set())
    assert connection not in opened.connections
    return wire.said


CHUNKED = (
    b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)
STREAMS = {
    "in a row": request(b"one", "/1") + request(b"", "/2", method="GET") + CHUNKED
    + request(b"x" * 50, "/4", x_b="c"),
    "the last one": request(b"one", "/1") + request(b"two", "/2", connection="close")
    + request(b"three", "/3"),
    "too long": request(b"one", "/1") + request(b"x" * 70, "/2") + request(b"three", "/3"),
    "chunks too long": request(b"one", "/1")
    + b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n50\r\n" + b"x" * 80
    + b"\r\n0\r\n\r\n" + request(b"three", "/3"),
    "not one host": request(b"one", "/1").replace(b"host: localhost\r\n", b""),
}  # fmt: skip


@cache
def one_by_one(name: str) -> bytes:
    """What is answered where each byte comes alone."""
    content = STREAMS[name]
    return asyncio.run(spoken([content[i : i + 1] for i in range(len(content))], door(body=60)))


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 400), max_size=12))
def test_the_pieces_in_which_requests_come_change_nothing(name: str, cuts: set[int]) -> None:
    content = STREAMS[name]
    ends = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
    pieces = [content[a:b] for a, b in pairwise(ends)]

    found = asyncio.run(spoken(pieces, door(body=60)))
    assert found == one_by_one(name)
    assert found.count(b"HTTP/1.1 ") == {
        "in a row": 4, "the last one": 2, "too long": 2, "chunks too long": 2, "not one host": 1,
    }[name]  # fmt: skip


def test_an_answer_tells_what_was_asked_and_when_it_is_the_last() -> None:
    said = asyncio.run(spoken([request(b"one", "/1"), request(b"", "/2", connection="close")],
                              door()))  # fmt: skip
    head = b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\nx-method: POST\r\n"
    assert said == (
        head + b"content-length: 8\r\n\r\n2 /1 one"
        + head + b"connection: close\r\ncontent-length: 5\r\n\r\n3 /2 "
    )  # fmt: skip


def test_of_head_only_the_head_is_told_and_an_address_in_full_is_understood() -> None:
    pieces = [request(b"", "/1", method="HEAD"), request(b"", "http://b/2?q", method="GET")]
    said = asyncio.run(spoken(pieces, door()))
    assert said.count(b"content-length: 5\r\n\r\n") == 1
    assert said.endswith(b"content-length: 7\r\n\r\n2 /2?q ")
    assert b"2 /1" not in said


@pytest.mark.parametrize("left", [1, len(BODY)])
def test_whoever_leaves_before_its_body_is_there_takes_up_no_room(left: int) -> None:
    opened = door()
    assert asyncio.run(spoken([request(BODY)[:-left]], opened)) == b""
    assert opened.metrics.counts["refused"] == {("gone",): 1}


def test_an_answer_that_fails_is_500_and_its_reason_is_told_to_nobody() -> None:
    async def fails(asked: Request) -> Answer:
        if asked.path == "/1":
            raise ValueError("hidden")
        return Answer(200, [(b"a", b"b\r\nhidden: c")], b"hidden")

    said = asyncio.run(spoken([request(path="/1"), request(path="/2")], door(fails)))
    assert said.count(b"HTTP/1.1 500 ") == 2
    assert b"hidden" not in said


def test_whoever_comes_while_there_is_no_room_is_told_so_and_stays_in_order() -> None:
    async def main() -> tuple[bytes, bytes]:
        free = asyncio.Event()

        async def waits(asked: Request) -> Answer:
            await free.wait()
            return Answer(200, [], b"")

        opened = door(waits, most=1)
        first = asyncio.ensure_future(spoken([request(b"1")], opened))
        await asyncio.sleep(0)
        wire, second = Wire(), Connection(opened)
        second.connection_made(wire)  # type: ignore[arg-type]
        busy = request(b"a body that is not read")
        # The second one comes before the first one's body has.
        second.data_received(busy[:-5])
        second.data_received(busy[-5:] + busy[:-5])
        free.set()
        await asyncio.sleep(0.01)
        second.data_received(busy[-5:])
        await asyncio.sleep(0.01)
        second.connection_lost(None)
        return await first, wire.said

    first, second = asyncio.run(main())
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.count(b"HTTP/1.1 503 ") == 2
    assert second.count(b"retry-after: 1") == 2


def test_what_a_client_does_not_read_holds_up_its_own_next_answers() -> None:
    async def main() -> None:
        opened = door()
        wire, connection = Wire(), Connection(opened)
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.pause_writing()
        connection.data_received(request(b"1", "/1") + request(b"2", "/2"))
        await asyncio.sleep(0.01)
        assert (wire.said, wire.reading, opened.intake.now) == (b"", False, 0)
        connection.resume_writing()
        await asyncio.sleep(0.01)
        assert wire.said.count(b"HTTP/1.1 200 ") == 2
        assert wire.reading
        connection.connection_lost(None)

    asyncio.run(main())


def test_time_ends_connections_that_ask_nothing_and_bodies_that_do_not_come() -> None:
    async def main() -> None:
        opened = door()
        limits = opened.limits
        sent = {"idle": request(b"1"), "body": request(b"1")[:-1], "head": request(b"1")[:9]}
        wires = {name: Wire() for name in sent}
        connections = {name: Connection(opened) for name in sent}
        for name, connection in connections.items():
            connection.connection_made(wires[name])  # type: ignore[arg-type]
            connection.data_received(sent[name])
        await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        for seconds, left in ((0, 3), (limits.body_seconds + 1, 1), (limits.idle_seconds + 1, 0)):
            for connection in connections.values():
                connection.sweep(now + seconds)
            assert sum(wire.open for wire in wires.values()) == left
        assert wires["idle"].said.count(b"HTTP/1.1") == 1
        assert wires["body"].said.startswith(b"HTTP/1.1 408 ")
        assert wires["head"].said.startswith(b"HTTP/1.1 408 ")
        assert opened.intake.now == 0
        assert opened.metrics.counts["refused"] == {("slow_body",): 1, ("slow_head",): 1}

    asyncio.run(main())


@pytest.mark.parametrize("header", [(b"a", b"b\r\nc: d"), (b"a\nb", b"c"), (b"a", b"\0"),
                                    (b"a", b"\r")])  # fmt: skip
def test_no_header_of_an_answer_has_an_end_in_it(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="an end in it"):
        answer_head(Answer(200, [header], b""), DATE, last=False)


def test_a_bodys_length_is_read_in_one_way_or_not_at_all() -> None:
    host = (b"host", b"a")
    assert body_length([host], "1.1") == 0
    assert body_length([], "1.0") == 0
    assert body_length([host, (b"content-length", b"7")], "1.1") == 7
    assert body_length([host, (b"transfer-encoding", b"Chunked")], "1.1") is None
    for headers, version in (
        ([], "1.1"), ([host, host], "1.0"), ([host, (b"content-length", b"1")] * 2, "1.1"),
        ([host, (b"transfer-encoding", b"chunked")], "1.0"), ([host] + [(b"a", b"b")] * 100, "1.1"),
        ([host, (b"transfer-encoding", b"gzip")], "1.1"),
        ([host, (b"transfer-encoding", b"chunked"), (b"content-length", b"1")], "1.1"),
    ):  # fmt: skip
        with pytest.raises(HeadError):
            body_length(headers, version)


def test_at_the_end_what_is_under_way_is_answered_and_the_rest_is_told(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        under, asking = await guard.open()
        asking.write(request(BODY))
        half, sending = await guard.open()
        sending.write(request(BODY)[:-3])
        idle, _ = await guard.open()
        await until(lambda: guard.counted("in_flight") == 2)
        guard.server.end()
        async with asyncio.timeout(60):
            assert (await read_reply(idle)).status == 0
            first, second = await asyncio.gather(read_reply(under), read_reply(half))
        assert (first.status, first.headers["connection"]) == (200, "close")
        assert (second.status, second.headers["connection"]) == (503, "close")
        assert guard.refused("ended") == 1

    serving(tmp_path, work, model=Model(pause=0.5), limits={"drain_seconds": 1})


def test_slots_are_given_on_in_order_and_none_is_lost() -> None:
    async def main() -> None:
        loop, rng = asyncio.get_running_loop(), random.Random(1)
        slots, most, inside, ended = Slots(3), [0], [0], [0]

        async def one(wait: float) -> None:
            if not slots.take():
                try:
                    await slots.wait(loop.time() + wait)
                except UpstreamError:
                    ended[0] += 1
                    return
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            try:
                await asyncio.sleep(rng.random() / 500)
            finally:
                inside[0] -= 1
                slots.free()

        tasks = [asyncio.ensure_future(one(rng.choice((0.001, 9)))) for _ in range(300)]
        await asyncio.sleep(0.002)
        for task in rng.sample(tasks, 80):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most[0] == 3
        assert ended[0] > 0
        # All are there again, and no more.
        assert [slots.take() for _ in range(4)] == [True, True, True, False]

    asyncio.run(main())


class Late:
    """Notes when it expires."""

    def __init__(self) -> None:
        self.at = 0.0

    def expire(self) -> None:
        self.at = asyncio.get_running_loop().time()


def test_each_expires_at_its_own_time_and_none_that_was_taken_out() -> None:
    async def main() -> None:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        began = loop.time()
        dues = [0.05, 0.02, 0.08, 0.02, 0.05]
        ones = [Late() for _ in dues]
        for one, due in zip(ones, dues, strict=True):
            deadlines.add(one, began + due)
        deadlines.remove(ones[4])
        await asyncio.sleep(0.2)
        for one, due in list(zip(ones, dues, strict=True))[:4]:
            assert one.at >= began + due
        assert ones[1].at <= ones[0].at <= ones[2].at
        assert ones[4].at == 0
        # It has let go of all of them, and works again.
        again = Late()
        deadlines.add(again, loop.time())
        await asyncio.sleep(0.05)
        assert again.at

    asyncio.run(main())


CHUNKS = b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def opened_wire(opened: Door) -> tuple[Wire, Connection]:
    wire, connection = Wire(), Connection(opened)
    connection.connection_made(wire)  # type: ignore[arg-type]
    return wire, connection


def test_the_rest_of_a_request_that_came_before_its_turn_is_read() -> None:
    async def main() -> None:
        wire, connection = opened_wire(door())
        second = request(b"two", "/2")
        connection.data_received(request(b"one", "/1") + second[:-1])
        assert not wire.reading
        await turns()
        assert wire.reading
        connection.data_received(second[-1:])
        await turns()
        assert wire.said.endswith(b"2 /2 two")
        connection.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize("refused", ["busy", "too long"])
def test_what_is_refused_while_the_client_does_not_read_is_not_answered_too(refused: str) -> None:
    async def main() -> None:
        asked = []

        async def answer(one: Request) -> Answer:
            asked.append(one.path)
            return Answer(200, [], b"")

        opened = door(answer, most=0) if refused == "busy" else door(answer, body=2)
        wire, connection = opened_wire(opened)
        connection.pause_writing()
        content = CHUNKS + b"3\r\nabc\r\n0\r\n\r\n"
        connection.data_received(content[:-2])
        connection.data_received(content[-2:] + request(b"", "/2"))
        await turns()
        assert (wire.said, asked) == (b"", [])
        connection.resume_writing()
        await turns()
        told = b"HTTP/1.1 503 " if refused == "busy" else b"HTTP/1.1 413 "
        assert wire.said.count(b"HTTP/1.1 ") == wire.said.count(told) == 1 + (refused == "busy")
        assert asked == []
        connection.connection_lost(None)

    asyncio.run(main())


def test_trailers_are_no_headers_and_have_an_end() -> None:
    asked = []

    async def answer(one: Request) -> Answer:
        asked.append(one.headers)
        return Answer(200, [], one.body)

    said = asyncio.run(spoken([CHUNKS + b"1\r\na\r\n0\r\nx-api-key: b\r\n\r\n"], door(answer)))
    assert said.endswith(b"\r\n\r\na")
    assert asked == [[(b"host", b"a"), (b"transfer-encoding", b"chunked")]]
    for line in (b"a: bcdefgh\r\n", b"abcdefghij"):
        opened = door(answer)
        said = asyncio.run(spoken([CHUNKS + b"0\r\na: ", *[line * 1000] * 9], opened))
        assert said.startswith(b"HTTP/1.1 431 ")
        assert opened.metrics.counts["refused"] == {("headers",): 1}


def test_many_small_chunks_take_up_little_more_than_their_body() -> None:
    async def main() -> None:
        _, connection = opened_wire(door())
        connection.data_received(CHUNKS)
        for _ in range(20):
            connection.data_received(b"2\r\nab\r\n" * 1000)
        assert connection._turn is not None
        assert b"".join(connection._turn.parts) == b"ab" * 20_000
        assert len(connection._turn.parts) < 200
        connection.connection_lost(None)

    asyncio.run(main())


def test_a_head_behind_another_request_is_not_longer_or_slower_than_others() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time()
        long = request(b"", "/2", a="b" * 40_000)
        opened = door()
        wire, connection = opened_wire(opened)
        connection.data_received(request(b"one", "/1") + long[:-9])
        await turns()
        assert wire.open
        connection.data_received(long[-9:])
        await turns()
        assert wire.said.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 431 " in wire.said

        # The body before it does not count.
        wire, connection = opened_wire(opened)
        connection.data_received(request(b"x" * 50_000, "/1") + request(b"", "/2")[:9])
        await turns()
        connection.data_received(request(b"", "/2")[9:])
        await turns()
        assert wire.said.count(b"HTTP/1.1 200 ") == 2

        wire, connection = opened_wire(opened)
        connection.data_received(request(b"one", "/1") + long[:9])
        await turns()
        connection.sweep(now + opened.limits.head_seconds + 1)
        assert b"HTTP/1.1 408 " in wire.said

    asyncio.run(main())


@pytest.mark.parametrize("more", [b"\r\n", b"POST"])
def test_what_comes_behind_a_request_does_not_end_it_before_its_answer(more: bytes) -> None:
    async def main() -> None:
        free = asyncio.Event()

        async def waits(asked: Request) -> Answer:
            await free.wait()
            return Answer(200, [], b"")

        opened = door(waits)
        wire, connection = opened_wire(opened)
        connection.data_received(request(b"1"))
        connection.data_received(more)
        now = asyncio.get_running_loop().time()
        connection.sweep(now + opened.limits.head_seconds + 1)
        assert wire.open
        free.set()
        await turns()
        assert wire.said.startswith(b"HTTP/1.1 200 ")
        connection.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize("version", [b" HTTP/2.0", b" HTTP/0.9", b""])
def test_no_other_version_is_spoken(version: bytes) -> None:
    said = asyncio.run(spoken([b"GET /" + version + b"\r\nhost: a\r\n\r\n"], door()))
    assert said.startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize(
    ("version", "length", "told"), [(b"1.1", 1, True), (b"1.0", 1, False), (b"1.1", 0, False)]
)
def test_only_who_waits_for_it_is_told_to_go_on(version: bytes, length: int, told: bool) -> None:
    head = b"POST / HTTP/%b\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    said = asyncio.run(spoken([head % (version, length), b"a" * length], door()))
    assert said.startswith(b"HTTP/1.1 100 " if told else b"HTTP/1.1 200 ")


def test_an_answer_that_has_no_body_or_no_status_does_not_disturb_the_next() -> None:
    async def odd(asked: Request) -> Answer:
        return Answer(int(asked.path[1:]), [], b"body")

    pieces = [request(path=f"/{status}") for status in (204, 999, 200)]
    said = asyncio.run(spoken(pieces, door(odd)))
    first, second, third = said.split(b"HTTP/1.1 ")[1:]
    assert first == b"204 No Content\r\n" + DATE + b"\r\n\r\n"
    assert second.startswith(b"500 ")
    assert third.startswith(b"200 ")


def test_at_the_end_a_connection_whose_request_was_refused_early_is_not_waited_for() -> None:
    async def main() -> None:
        opened = door(most=0)
        wire, connection = opened_wire(opened)
        connection.data_received(request(b"one")[:-1])
        assert wire.said.startswith(b"HTTP/1.1 503 ")
        opened.closing = True
        connection.end()
        assert wire.open
        connection.data_received(request(b"one")[-1:])
        assert not wire.open
        connection.connection_lost(None)

    asyncio.run(main())
