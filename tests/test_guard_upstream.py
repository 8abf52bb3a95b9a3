"""A model server that is down, slow or lying, on real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from withstand._errors import ConfigError
from withstand.guard import Answer, UpstreamError
from withstand.guard.upstream import HttpPool, Patience

QUICK = Patience(connect=0.5, total=0.5, body=1000, connections=2, idle=5)
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-kept: yes\r\n\r\nok"


class Server:
    """Answers each request with what it is told, byte for byte."""

    def __init__(self, *answers: bytes, closes: bool = False, pause: float = 0.0) -> None:
        self.answers, self.closes, self.pause = list(answers), closes, pause
        self.seen: list[bytes] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.seen.append(head + await reader.readexactly(length))
                await asyncio.sleep(self.pause)
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                await writer.drain()
                if self.closes:
                    break
        writer.close()


def with_server(
    server: Server, work: Callable[[HttpPool], Awaitable[Any]], patience: Patience = QUICK
) -> Any:
    async def main() -> Any:
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            upstream = HttpPool("127.0.0.1", port, patience=patience)
            try:
                return await work(upstream)
            finally:
                upstream.close()
                for writer in server.writers:
                    writer.close()
                # Transports end in the loop's next turns.
                await asyncio.sleep(0.02)

    return asyncio.run(main())


async def asked(upstream: HttpPool, body: bytes = b"body") -> Answer:
    return await upstream.ask("POST", "/v2/models/m/infer", [(b"accept", b"*/*")], body)


def test_one_connection_serves_many_requests() -> None:
    server = Server(GOOD)

    async def work(upstream: HttpPool) -> list[Answer]:
        return [await asked(upstream, b"%d" % number) for number in range(20)]

    answers = with_server(server, work)
    assert server.connections == 1
    assert answers[0] == Answer(200, [(b"x-kept", b"yes")], b"ok")
    assert server.seen[3].startswith(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1:")
    assert server.seen[3].endswith(b"\r\naccept: */*\r\ncontent-length: 1\r\n\r\n3")


def test_chunks_and_errors_are_passed_on() -> None:
    chunked = (
        b"HTTP/1.1 422 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    )
    answer = with_server(Server(chunked), asked)
    assert (answer.status, answer.headers, answer.body) == (422, [], b"abcd")
    # A trailer is no header.
    ended = chunked.replace(b"0\r\n\r\n", b"0\r\nx-a: b\r\n\r\n")
    assert with_server(Server(ended), asked) == answer
    assert with_server(Server(b"HTTP/1.1 204 None\r\n\r\n"), asked).status == 204


LIES = {
    "not http": b"hello\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked"
    b"\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "bad length": b"HTTP/1.1 200 OK\r\ncontent-length: 2x\r\n\r\nab",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nab",
    "bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
    "upgrade": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "huge headers": b"HTTP/1.1 200 OK\r\n"
    + b"a: "
    + b"b" * 70_000
    + b"\r\ncontent-length: 0\r\n\r\n",
    "too long": b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + bytes(2000),
    "a status that is none": b"HTTP/1.1 999 X\r\ncontent-length: 2\r\n\r\nok",
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n"
    b"2\r\nab\r\n0\r\n\r\n",
    "a header without an end": b"HTTP/1.1 200 OK\r\na: " + b"b" * 400_000,
    "a trailer without an end": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: "
    + b"b" * 400_000,
    "endless chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    + (b"64\r\n" + b"a" * 100 + b"\r\n") * 20,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_not_passed_on(lie: str) -> None:
    server = Server(LIES[lie], GOOD)

    async def work(upstream: HttpPool) -> Answer:
        with pytest.raises(UpstreamError) as refused:
            await asked(upstream)
        assert (refused.value.status, refused.value.reason) == (502, "upstream_lies")
        return await asked(upstream)

    assert with_server(server, work).body == b"ok"
    assert server.connections == 2


def test_a_second_answer_is_never_taken_for_the_next_one() -> None:
    smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen"
    for server in (Server(GOOD + smuggled, GOOD), Server(GOOD + b"x", GOOD)):

        async def work(upstream: HttpPool) -> list[bytes]:
            bodies = [(await asked(upstream)).body]
            await asyncio.sleep(0.05)
            return [*bodies, (await asked(upstream)).body]

        assert with_server(server, work) == [b"ok", b"ok"]
        assert server.connections == 2


def test_a_server_that_closes_early_is_502() -> None:
    for part in (b"", GOOD[:20], GOOD[:-1]):
        server = Server(part, GOOD, closes=True)

        async def work(upstream: HttpPool) -> Answer:
            with pytest.raises(UpstreamError) as refused:
                await asked(upstream)
            assert (refused.value.status, refused.value.reason) == (502, "upstream_closed")
            return await asked(upstream)

        assert with_server(server, work).body == b"ok"
        # What may have been worked on is not sent again.
        assert len(server.seen) == 2


def test_a_server_that_closes_after_each_answer_is_asked_anew() -> None:
    server = Server(GOOD, closes=True)

    async def work(upstream: HttpPool) -> list[bytes]:
        found = []
        for _ in range(5):
            found.append((await asked(upstream)).body)
            await asyncio.sleep(0.01)
        return found

    assert with_server(server, work) == [b"ok"] * 5
    assert server.connections == 5


def test_a_slow_server_ends_in_time_and_its_late_answer_goes_to_nobody() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate", GOOD, pause=0.7)

    async def work(upstream: HttpPool) -> bytes:
        began = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamError) as refused:
            await asked(upstream)
        assert (refused.value.status, refused.value.reason) == (504, "upstream_slow")
        assert asyncio.get_running_loop().time() - began < 1.5
        server.pause = 0
        await asyncio.sleep(0.3)
        return (await asked(upstream)).body

    assert with_server(server, work) == b"ok"


def test_connecting_takes_no_longer_than_the_whole_may() -> None:
    async def work(server: HttpPool) -> None:
        patience = Patience(connect=3, total=0.1)
        mute = HttpPool(
            server.host, server.port, patience=patience, tls=ssl.create_default_context()
        )
        began = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamError) as refused:
            await asked(mute)
        assert (refused.value.status, refused.value.reason) == (504, "upstream_unreachable")
        assert asyncio.get_running_loop().time() - began < 1.5

    # It waits for the end of a head, and tells nothing of TLS.
    with_server(Server(GOOD), work)


def test_whoever_leaves_takes_the_connection_along() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate", GOOD, pause=0.1)

    async def work(upstream: HttpPool) -> bytes:
        leaving = asyncio.ensure_future(asked(upstream))
        await asyncio.sleep(0.05)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await asyncio.sleep(0.1)
        return (await asked(upstream)).body

    assert with_server(server, work) == b"ok"
    assert server.connections == 2


def test_there_are_never_more_connections_than_allowed() -> None:
    server = Server(GOOD, pause=0.02)

    async def work(upstream: HttpPool) -> int:
        answers = await asyncio.gather(*(asked(upstream) for _ in range(10)))
        return sum(answer.body == b"ok" for answer in answers)

    assert with_server(server, work) == 10
    assert server.connections == 2


def test_nobody_there_is_502() -> None:
    async def work() -> None:
        async with await asyncio.start_server(Server(GOOD), "127.0.0.1", 0) as gone:
            port = gone.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamError) as refused:
            await asked(HttpPool("127.0.0.1", port, patience=QUICK))
        assert (refused.value.status, refused.value.reason) == (502, "upstream_down")

    asyncio.run(work())


@pytest.mark.parametrize(
    "header",
    [(b"a", b"b\r\nhost: evil"), (b"a\r\nb", b"c"), (b"a b", b"c"), (b"", b"c"), (b"a", b"\x00")],
)
def test_a_header_cannot_smuggle_a_request(header: tuple[bytes, bytes]) -> None:
    server = Server(GOOD)

    async def work(upstream: HttpPool) -> None:
        with pytest.raises(UpstreamError):
            await upstream.ask("GET", "/v2", [header])

    with_server(server, work)
    assert server.seen == []


def test_headers_of_the_connection_are_not_the_clients() -> None:
    server = Server(GOOD)
    headers = [(b"host", b"evil"), (b"content-length", b"99"), (b"transfer-encoding", b"chunked"),
               (b"connection", b"close"), (b"x-request-id", b"7")]  # fmt: skip

    async def work(upstream: HttpPool) -> Answer:
        return await upstream.ask("POST", "/v2", headers, b"ab")

    assert with_server(server, work).body == b"ok"
    assert b"evil" not in server.seen[0]
    assert server.seen[0].count(b"\r\n") == 5
    assert b"x-request-id: 7" in server.seen[0]
    with pytest.raises(ConfigError, match="is no address"):
        HttpPool("", 0)
