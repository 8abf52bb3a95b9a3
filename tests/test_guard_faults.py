"""Clients and circumstances that are not kind: the guard goes on, and counts them."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from guarding import Model, v2_answer, v2_body
from processes import started
from serving import PATH, Reply, Running, X, model_server, read_reply, request, serving, until
from test_guard_upstream import LIES, Server

from withstand.evidence.log import Break, _log, read, verify
from withstand.guard import Answer, Call, Sensor, Signal

BODY = v2_body(X)
QUICK = {"head_seconds": 0.4, "body_seconds": 0.4, "read_seconds": 0.4}


def records(folder: Path) -> list[dict[str, Any]]:
    found = [place.record for place in read(folder) if not isinstance(place, Break)]
    return [record.content for record in found if record.kind == "decision"]


FRAMES: dict[str, tuple[bytes, tuple[int, ...], str]] = {
    "two lengths": (
        request(BODY).replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n", 1), (400,), "",
    ),
    "the same length twice": (
        request(BODY).replace(b"\r\n\r\n", b"\r\ncontent-length: %d\r\n\r\n" % len(BODY), 1),
        (400,), "",
    ),
    "a list of lengths": (request(BODY, content_length=f"{len(BODY)}, {len(BODY)}"), (400,), ""),
    "a signed length": (request(BODY, content_length=f"+{len(BODY)}"), (400,), ""),
    "length and chunks": (request(b"0\r\n\r\n", transfer_encoding="chunked"), (400,), ""),
    "chunks of another coding": (
        request(b"", transfer_encoding="gzip, chunked").replace(b"content-length: 0\r\n", b""),
        (400,), "framing",
    ),
    "chunks twice": (
        request(b"", transfer_encoding="chunked, chunked").replace(b"content-length: 0\r\n", b""),
        (400,), "",
    ),
    "chunks in HTTP/1.0": (
        b"POST %b HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        % PATH.encode(), (400,), "",
    ),
    "a bad chunk": (
        b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n"
        % PATH.encode(), (400, 0), "",
    ),
    "a folded header": (request(BODY).replace(b"\r\nhost: ", b"\r\nx-a: b\r\n c\r\nhost: "),
                        (400,), ""),
    "bare line feeds": (request(BODY).replace(b"\r\n", b"\n"), (400,), ""),
    "a space before the colon": (request(BODY).replace(b"host:", b"host :"), (400,), ""),
    "a null byte": (request(BODY, x_a="b\0c"), (400,), ""),
    "no host": (request(BODY).replace(b"host: localhost\r\n", b""), (400,), "host"),
    "two hosts": (request(BODY).replace(b"\r\n\r\n", b"\r\nhost: b\r\n\r\n", 1), (400,), "host"),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00" + bytes(100), (400,), "not_http"),
    "another version": (request(BODY).replace(b"HTTP/1.1", b"HTTP/9.9"), (400,), ""),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,), ""),
    "a tunnel": (b"CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\n\r\n", (400, 404), ""),
    "another method": (request(BODY, method="BREW"), (400,), ""),
    "another protocol": (request(BODY, connection="upgrade", upgrade="h2c"), (400,), "upgrade"),
    "compressed": (request(gzip.compress(BODY), content_encoding="gzip"), (415,), "encoding"),
    "a header too long": (request(BODY, x_a="b" * 40_000), (431,), "headers"),
    "headers too many": (request(BODY, **{f"x{n}": "a" for n in range(200)}), (431,), "headers"),
    "a path too long": (request(BODY, PATH + "x" * 40_000), (431,), "headers"),
    "a body too long": (request(BODY, content_length="99999999"), (413,), "too_large"),
    "chunks too long": (
        b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" % PATH.encode()
        + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 20, (413,), "too_large",
    ),
    "two header lengths": (
        request(BODY, inference_header_content_length="5").replace(
            b"\r\n\r\n", b"\r\ninference-header-content-length: 6\r\n\r\n", 1
        ), (400,), "header_length",
    ),
}  # fmt: skip


def test_no_frame_that_servers_read_differently_is_taken(tmp_path: Path) -> None:
    model = Model()

    async def work(guard: Running) -> None:
        for name, (content, statuses, reason) in FRAMES.items():
            before = guard.refused(reason) if reason else 0
            reply = await guard.send(content)
            assert reply.status in statuses, (name, reply)
            if reply.status:
                assert set(reply.json) == {"error"}, name
                assert b"Traceback" not in reply.body
            assert not reason or guard.refused(reason) == before + 1, name
        assert not [one for one in model.seen if one[0] == "POST"]
        assert (await guard.infer()).status == 200

    serving(tmp_path, work, model=model, limits={"body": 50_000})


def test_what_is_unusual_and_clear_is_taken(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(BODY[i : i + 9]), BODY[i : i + 9])
                          for i in range(0, len(BODY), 9))  # fmt: skip
        chunked = request(b"", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
        assert (await guard.send(chunked + chunks + b"0\r\n\r\n")).status == 200
        old = await guard.send(request(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (old.status, old.headers["connection"]) == (200, "close")
        reader, writer = await guard.open()
        writer.write(request(BODY, expect="100-continue")[: -len(BODY)])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(BODY)
        assert (await read_reply(reader)).status == 200

    serving(tmp_path, work)


def test_whoever_sends_slowly_is_cut_off(tmp_path: Path) -> None:
    async def trickle(guard: Running, first: bytes, drop: bytes) -> list[int]:
        reader, writer = await guard.open()
        writer.write(first)
        found = []

        async def replies() -> None:
            while (reply := await read_reply(reader)).status:
                found.append(reply.status)

        reading = asyncio.ensure_future(replies())
        async with asyncio.timeout(60):
            while not reading.done():
                with suppress(ConnectionError):
                    writer.write(drop)
                    await writer.drain()
                await asyncio.sleep(0.1)
        return found

    async def work(guard: Running) -> None:
        head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\n".encode()
        body = head + b"content-length: 1000\r\n\r\n"
        got = await asyncio.gather(
            trickle(guard, b"", b""),
            trickle(guard, b"", b"\r\n"),
            trickle(guard, head, b"a"),
            trickle(guard, head + b"x: ", b"a"),
            trickle(guard, request(BODY) + head, b"a"),
            trickle(guard, body, b" "),
            trickle(guard, request(BODY, content_length="99999999"), b" "),
        )
        assert got == [[408], [408], [408], [408], [200, 408], [408], [413]]
        assert guard.refused("slow_head") == 5
        assert guard.refused("slow_body") >= 1
        await until(lambda: guard.counted("connections") == 0)
        assert (await guard.infer()).status == 200

    serving(tmp_path, work, limits=QUICK)


def test_whoever_goes_on_sending_after_an_answer_is_cut_off(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        others = asyncio.ensure_future(guard.infer())
        await until(lambda: guard.counted("in_flight") == 1)
        reader, writer = await guard.open()
        writer.write(request(BODY, content_length="1000"))
        assert (await read_reply(reader)).status == 503
        async with asyncio.timeout(60):
            # uvloop raises RuntimeError for what is sent after a reset.
            with suppress(ConnectionError, RuntimeError):
                while not reader.at_eof():
                    writer.write(b" ")
                    await asyncio.sleep(0.05)
        # One answer is all it gets: a second one would be taken for that of another request.
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert guard.refused("slow_body") == 1
        assert (await others).status == 200

    limits = {**QUICK, "requests": 1}
    serving(tmp_path, work, model=Model(pause=0.3), limits=limits)


def test_an_endless_header_is_not_kept(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        reader, writer = await guard.open()
        writer.write(b"GET /v2 HTTP/1.1\r\nx: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 2**22 and not reader.at_eof():
                writer.write(b"a" * 2**16)
                await writer.drain()
                sent += 2**16
        assert guard.refused("headers") == 1
        assert sent < 2**22

    serving(tmp_path, work)


class Long(Model):
    """Answers with megabytes."""

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        answer = await super().ask(method, target, headers, body)
        return answer if method == "GET" else answer._replace(body=LONG)


LONG = v2_answer(np.full((100_000, 3), 1 / 3))


def test_whoever_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        clients = []
        for _ in range(5):
            client = socket.create_connection(("127.0.0.1", guard.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request(BODY))
            clients.append(client)
        await until(lambda: guard.counted("requests_total", model="", tenant="default",
                                          status="200") == 5)  # fmt: skip
        # None of them is waited for: others are served meanwhile.
        assert (await guard.infer()).body == LONG
        assert guard.counted("in_flight") == 0
        await until(lambda: guard.refused("unread") == 5)
        await until(lambda: guard.counted("connections") == 0)
        for client in clients:
            client.close()

    serving(tmp_path, work, model=Long(), limits=QUICK)


def test_the_end_does_not_wait_for_whoever_does_not_read(tmp_path: Path) -> None:
    began = []

    async def work(guard: Running) -> None:
        client = socket.create_connection(("127.0.0.1", guard.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request(BODY) * 3)
        # The first answer is in the buffer, and the second one waits for room.
        await until(lambda: guard.counted("requests_total", model="", tenant="default",
                                          status="200") == 2)  # fmt: skip
        began.append((time.monotonic(), client))

    serving(tmp_path, work, model=Long(), limits={"read_seconds": 1000, "drain_seconds": 1})
    at, client = began[0]
    client.close()
    assert time.monotonic() - at < 30


def test_requests_in_a_row_are_answered_in_order_and_not_without_end(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        reader, writer = await guard.open()
        writer.write(b"".join(request(v2_body(X, id=str(n))) for n in range(10)))
        found = [(await read_reply(reader)).json["id"] for n in range(10)]
        assert found == [str(n) for n in range(10)]
        reader, writer = await guard.open()
        with suppress(ConnectionError):
            writer.write(request(method="GET", path="/v2") * 5000)
            await writer.drain()
        statuses = []
        while (reply := await read_reply(reader)).status:
            statuses.append(reply.status)
        # No answer is out of its order: the refusal is that the connection ends.
        assert set(statuses) <= {200}
        assert len(statuses) < 200
        assert guard.refused("pipelined") == 1
        assert (await guard.infer()).status == 200

    serving(tmp_path, work)


def test_whoever_leaves_is_counted_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(guard: Running) -> None:
        for part in (request(BODY)[:-5], request(BODY)[: -len(BODY)]):
            _, writer = await guard.open()
            writer.write(part)
            await until(lambda: guard.counted("in_flight") == 1)
            writer.close()
            await until(lambda: guard.counted("in_flight") == 0)
        assert guard.refused("gone") == 2
        _, writer = await guard.open()
        writer.write(request(BODY))
        await until(lambda: guard.counted("in_flight") == 1)
        writer.transport.abort()
        await until(lambda: guard.counted("in_flight") == 0)
        assert (await guard.infer()).status == 200

    serving(tmp_path, work, model=Model(pause=0.05))
    assert "Traceback" not in caplog.text


def test_two_thousand_idle_connections_shut_out_neither_clients_nor_operators(
    tmp_path: Path,
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 6000:
        pytest.skip("the system allows fewer than 6,000 open files")
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (6000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )

    async def work(guard: Running) -> None:
        known, asking = await guard.open()
        asking.write(request(BODY))
        assert (await read_reply(known)).status == 200
        clients = []
        for _ in range(2000):
            clients.append(socket.create_connection(("127.0.0.1", guard.port)))
            if len(clients) % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: guard.refused("gave_way") == 501)
        assert (await guard.admin("/health/live")).status == 200
        assert (await guard.infer()).status == 200
        # Those that have never asked give way first.
        asking.write(request(BODY))
        assert (await read_reply(known)).status == 200
        assert guard.refused("connections") == 0
        for client in clients:
            client.close()
        await until(lambda: guard.counted("connections") == 1)
        assert (await guard.infer()).status == 200

    serving(tmp_path, work, limits={"connections": 1500})


@pytest.mark.parametrize("limits", [{"requests": 3}, {"body": len(BODY), "memory": 3 * len(BODY)}])
def test_more_than_allowed_at_one_time_are_told_to_come_back(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    async def work(guard: Running) -> None:
        replies = await asyncio.gather(*(guard.infer() for _ in range(12)))
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 503}
        assert statuses.count(503) == guard.refused("busy") > 0
        assert all(one.headers["retry-after"] for one in replies if one.status == 503)

    serving(tmp_path, work, model=Model(pause=0.2), limits=limits)


class Slow(Sensor):
    """Holds up everybody."""

    name = "slow"

    def look(self, call: Call) -> Signal:
        time.sleep(1.2)
        return Signal("slow", 0, 1, False)


def test_a_blocked_loop_is_seen_and_got_over(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        line = guard.service.guard.lines[""]
        object.__setattr__(line, "sensors", (Slow(),))
        assert (await guard.infer()).status == 200
        await until(lambda: guard.counted("loop_lag_seconds") > 0.1)
        object.__setattr__(line, "sensors", ())
        assert (await guard.infer()).status == 200

    serving(tmp_path, work)


def test_a_clock_that_is_set_changes_no_quota_and_no_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, off = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + off[0])

    async def work(guard: Running) -> None:
        statuses = []
        for hours in (0, 1, -1, 0):
            off[0] = 3600.0 * hours
            statuses.append((await guard.infer()).status)
        assert statuses == [200, 200, 200, 429]
        guard.service.guard.lines[""].standing.flagged("open")
        off[0] = 3600.0
        assert guard.service.guard.lines[""].standing._faded("open") == pytest.approx(1, abs=0.1)

    quota = {"requests": 3, "seconds": 600}
    serving(tmp_path, work, quota=quota, evidence={"folder": "evidence"})
    assert verify(tmp_path / "evidence").faults == ()
    assert len(records(tmp_path / "evidence")) == 3


@pytest.mark.parametrize("required", [False, True])
def test_a_full_disk_follows_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    monkeypatch.setattr(_log, "_RETRY", 0.02)
    full, write = [False], _log._write

    def some(file: int, content: bytes) -> None:
        if full[0]:
            os.write(file, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content)

    monkeypatch.setattr(_log, "_write", some)

    async def work(guard: Running) -> None:
        assert (await guard.infer()).status == 200
        full[0] = True
        await guard.infer()
        await until(lambda: guard.counted("evidence_failures_total") > 0)
        assert guard.counted("evidence_failing") == 1
        reply = await guard.infer()
        assert reply.status == (503 if required else 200)
        assert not required or reply.json == {"error": "try again later"}
        ready = await guard.admin("/health/ready")
        assert ready.json["why"] == (["evidence cannot be written"] if required else [])
        full[0] = False
        await until(lambda: guard.counted("evidence_failing") == 0)
        assert (await guard.infer()).status == 200

    serving(tmp_path, work, evidence={"folder": "evidence", "required": required})
    found = verify(tmp_path / "evidence")
    assert (found.faults, found.lost) == ((), 0)
    assert len(records(tmp_path / "evidence")) == 4


ROWS: dict[str, tuple[Callable[[], Server], int, str]] = {
    "silent": (lambda: Server(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", pause=3), 504,
               "upstream_slow"),
    "closing": (lambda: Server(b"", closes=True), 502, "upstream_closed"),
    "halfway": (lambda: Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", closes=True), 502,
                "upstream_closed"),
    "no numbers": (lambda: Server(b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"outputs":[3]}'),
                   502, "upstream_lies"),
    "NaN": (lambda: Server(_answer(v2_answer(np.zeros((1, 3))).replace(b"0.0", b"NaN"))), 502,
            "upstream_lies"),
    "another shape": (
        lambda: Server(_answer(v2_answer(np.zeros((1, 3))).replace(b"[1,3]", b"[9]"))), 502,
        "upstream_lies",
    ),
    **{lie: (lambda lie=lie: Server(LIES[lie]), 502, "upstream_lies") for lie in LIES},
}  # fmt: skip


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def test_a_model_server_that_fails_is_told_apart_and_written_down(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        for name, (made, status, reason) in ROWS.items():
            server = made()
            async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
                port = listening.sockets[0].getsockname()[1]
                guard.rewrite(upstream=f"http://127.0.0.1:{port}")
                assert (await guard.change("/reload")).status == 200
                reply = await guard.infer()
                assert reply.status == status, (name, reply)
                assert reply.json == {"error": "the model server gave no answer"}
                for writer in server.writers:
                    writer.close()
            expected.append((status, reason))

    expected: list[tuple[int, str]] = []
    # The guard asks what the server is, too: those answers are lies as well, and cost nothing.
    limits = {"answer_seconds": 0.5, "answer": 1000}
    serving(tmp_path, work, limits=limits, evidence={"folder": "evidence"})
    assert [(one["status"], one["reason"]) for one in records(tmp_path / "evidence")] == expected
    assert verify(tmp_path / "evidence").faults == ()


def guard_file(folder: Path, port: int) -> None:
    told = {
        "upstream": f"http://127.0.0.1:{port}", "listen": "127.0.0.1:0", "admin": "127.0.0.1:0",
        "open": True, "mode": "enforce", "evidence": {"folder": "evidence"},
        "limits": {"connections": 100, "upstream_connections": 8},
    }  # fmt: skip
    (folder / "withstand.yaml").write_text(yaml.safe_dump({"guard": told}))


async def addresses(said: Callable[[], str]) -> tuple[int, int]:
    async with asyncio.timeout(60):
        while not (found := re.findall(r"http://127\.0\.0\.1:(\d+)", said())):
            await asyncio.sleep(0.02)
    return int(found[0]), int(found[1])


async def clients(port: int, answers: list[int], many: int = 4) -> list[asyncio.Future[None]]:
    async def client() -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        try:
            reply = Reply(200, {}, b"")
            while reply.status:
                writer.write(request(BODY))
                reply = await read_reply(reader)
                if reply.status:
                    answers.append(reply.status)
        finally:
            writer.close()

    return [asyncio.ensure_future(client()) for _ in range(many)]


def test_killed_under_load_it_leaves_evidence_that_verifies(tmp_path: Path) -> None:
    answers: list[int] = []

    async def main() -> None:
        async with model_server(Model()) as port:
            guard_file(tmp_path, port)
            with started("guard", "serve", folder=tmp_path) as (process, said):
                asking = await clients((await addresses(said))[0], answers)
                await until(lambda: len(answers) > 300)
                os.kill(process, signal.SIGKILL)
                await asyncio.gather(*asking)
            kept.append(len(records(tmp_path / "evidence")))
            with started("guard", "serve", folder=tmp_path) as (process, said):
                more: list[int] = []
                asking = await clients((await addresses(said))[0], more, 1)
                await until(lambda: len(more) > 10)
                os.kill(process, signal.SIGHUP)
                have = len(more)
                await until(lambda: "new configuration taken" in said())
                await until(lambda: len(more) > have + 10)
                os.kill(process, signal.SIGTERM)
                await asyncio.gather(*asking)
                assert set(more) == {200}
                # It has let go of the folder when it has ended.
                await until(lambda: last(tmp_path / "evidence") == "close")
                kept.append(len(more))

    kept: list[int] = []
    asyncio.run(main())
    assert set(answers) == {200}
    found = verify(tmp_path / "evidence")
    assert (found.faults, found.boots, found.unclean, found.lost) == ((), 2, 1, 0)
    # What had not reached the disk yet is lost, and that the writer did not end is seen.
    assert 0 < kept[0] <= len(answers) + 4
    assert len(records(tmp_path / "evidence")) == kept[0] + kept[1]


def last(folder: Path) -> str:
    found = [place.record.kind for place in read(folder) if not isinstance(place, Break)]
    return found[-1]


def test_without_files_to_open_it_waits_and_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with model_server(Model()) as port:
            guard_file(tmp_path, port)
            with started("guard", "serve", folder=tmp_path) as (process, said):
                place, admin = await addresses(said)
                reader, writer = await asyncio.open_connection("127.0.0.1", place)
                writer.write(request(BODY))
                assert (await read_reply(reader)).status == 200
                files = len(os.listdir(f"/proc/{process}/fd"))
                before = resource.prlimit(process, resource.RLIMIT_NOFILE)
                resource.prlimit(process, resource.RLIMIT_NOFILE, (files + 5, before[1]))
                others = [socket.create_connection(("127.0.0.1", place)) for _ in range(40)]
                await asyncio.sleep(0.2)
                # Whoever is in is still served.
                writer.write(request(BODY))
                assert (await read_reply(reader)).status == 200
                for other in others:
                    other.close()
                async with asyncio.timeout(60):
                    status = 0
                    while status != 200:
                        again, asking = await asyncio.open_connection("127.0.0.1", admin)
                        asking.write(request(path="/health/live", method="GET"))
                        with suppress(TimeoutError):
                            async with asyncio.timeout(1):
                                status = (await read_reply(again)).status
                        asking.close()
                writer.close()
                os.kill(process, signal.SIGTERM)
                await until(lambda: last(tmp_path / "evidence") == "close")

    asyncio.run(main())
    assert verify(tmp_path / "evidence").faults == ()


def test_nothing_that_clients_send_is_told_to_others_or_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(guard: Running) -> None:
        for x in ("\n2026 ERROR all is lost", "\x1b[2J"):
            body = json.dumps({"inputs": [{"name": x, "shape": [1], "datatype": x}]}).encode()
            reply = await guard.send(request(body, x_api_key="ws_" + x.encode().hex()))
            assert reply.status == 400
        assert "all is lost" not in caplog.text
        assert "all is lost" not in (await guard.admin("/metrics")).body.decode()

    serving(tmp_path, work)
