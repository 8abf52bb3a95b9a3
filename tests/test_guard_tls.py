"""A model server over https: whom the guard trusts, and what it asks of nobody else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from test_guard_upstream import GOOD, LIES, QUICK, Server, asked, with_server

from withstand._errors import ConfigError
from withstand.guard import Answer, UpstreamError
from withstand.guard.upstream import HttpPool, Patience, upstream_of


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def over_tls(
    server: Server, context: ssl.SSLContext, work: Callable[[HttpPool], Awaitable[Any]],
    host: str = "localhost", patience: Patience = QUICK, **files: Any,
) -> Any:  # fmt: skip
    async def main() -> Any:
        async with await asyncio.start_server(server, "127.0.0.1", 0, ssl=context) as listening:
            port = listening.sockets[0].getsockname()[1]
            upstream = upstream_of(f"https://{host}:{port}", patience, **files)
            try:
                return await work(upstream)
            finally:
                upstream.close()
                for writer in server.writers:
                    # Early ones of Python 3.11 cannot abort what was closed twice.
                    with suppress(AttributeError):
                        writer.transport.abort()
                await asyncio.sleep(0.02)

    return asyncio.run(main())


async def refused(upstream: HttpPool) -> tuple[int, str]:
    with pytest.raises(UpstreamError) as error:
        await asked(upstream)
    return error.value.status, error.value.reason


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_trusted_server_is_asked_over_one_connection(authority: Authority, host: str) -> None:
    server = Server(GOOD)

    async def work(upstream: HttpPool) -> list[Answer]:
        return [await asked(upstream, b"%d" % number) for number in range(5)]

    answers = over_tls(server, authority.serving(), work, host, ca=authority.path)
    assert answers == [Answer(200, [(b"x-kept", b"yes")], b"ok")] * 5
    assert server.connections == 1
    assert f"host: {host}:".encode() in server.seen[0]


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_not_passed_on(authority: Authority, lie: str) -> None:
    server = Server(LIES[lie], GOOD)

    async def work(upstream: HttpPool) -> tuple[Any, bytes]:
        return await refused(upstream), (await asked(upstream)).body

    found = over_tls(server, authority.serving(), work, ca=authority.path)
    assert found == ((502, "upstream_lies"), b"ok")


def test_a_second_answer_is_never_taken_for_the_next_one(authority: Authority) -> None:
    server = Server(GOOD + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen", GOOD)

    async def work(upstream: HttpPool) -> list[bytes]:
        bodies = [(await asked(upstream)).body]
        await asyncio.sleep(0.05)
        return [*bodies, (await asked(upstream)).body]

    assert over_tls(server, authority.serving(), work, ca=authority.path) == [b"ok", b"ok"]


def test_a_server_that_closes_early_or_is_slow_ends_in_time(authority: Authority) -> None:
    # The end of a connection, which anybody on the way can bring about, is never that of an answer.
    for server, reason in (
        (Server(GOOD[:-1], closes=True), (502, "upstream_closed")),
        (Server(GOOD, pause=0.7), (504, "upstream_slow")),
    ):
        assert over_tls(server, authority.serving(), refused, ca=authority.path) == reason


def test_a_server_that_is_not_trusted_gets_no_request(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path, "other")
    faults: list[tuple[ssl.SSLContext, dict[str, Any], str]] = [
        (authority.serving(), {}, "self-signed|unable to get"),
        (authority.serving(), {"ca": other.path}, "verify failed"),
        (authority.serving("example.org"), {"ca": authority.path}, "ostname"),
        (authority.serving(days=-1), {"ca": authority.path}, "expired"),
    ]
    for context, files, why in faults:
        server = Server(GOOD)
        caplog.clear()

        async def work(upstream: HttpPool) -> list[Any]:
            return [await refused(upstream), await refused(upstream)]

        assert over_tls(server, context, work, **files) == [(502, "upstream_tls")] * 2
        assert server.seen == []
        # Told once to the operator, not for each request.
        (record,) = [one for one in caplog.records if one.name == "withstand.guard"]
        assert "is not trusted" in record.getMessage()
        assert why.split("|")[0] in caplog.text or why.split("|")[-1] in caplog.text


def test_plain_http_behind_https_is_a_fault_and_old_versions_are_refused(
    authority: Authority,
) -> None:
    async def main() -> None:
        async with await asyncio.start_server(Server(GOOD), "127.0.0.1", 0) as plain:
            port = plain.sockets[0].getsockname()[1]
            upstream = upstream_of(f"https://localhost:{port}", QUICK, ca=authority.path)
            assert (await refused(upstream))[0] in (502, 504)
            await asyncio.sleep(0.02)

    asyncio.run(main())
    context = upstream_of("https://localhost", ca=authority.path)._tls["ssl"]
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_a_server_may_want_to_see_a_certificate(authority: Authority) -> None:
    context = authority.serving()
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    shown = {"ca": authority.path, "certificate": authority.certificate("guard")}
    assert over_tls(Server(GOOD), context, asked, **shown).body == b"ok"
    server = Server(GOOD)
    assert over_tls(server, context, refused, ca=authority.path)[0] == 502
    assert server.seen == []


def test_no_redirect_is_followed_and_none_is_passed_on() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
    server = Server(moved, GOOD)

    async def work(upstream: HttpPool) -> tuple[Any, bytes]:
        return await refused(upstream), (await asked(upstream)).body

    assert with_server(server, work) == ((502, "upstream_redirects"), b"ok")
    assert server.connections == 1
    zipped = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"
    assert with_server(Server(zipped), refused) == (502, "upstream_lies")


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert with_server(Server(GOOD), asked).body == b"ok"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://a", "http://", "http://a/v2", "http://a?x", "http://a#x",
     "http://a:0", "http://a:99999", "http://a b", "http://a\r\nx: y", "file:///etc/passwd",
     "http://a\\@b"],
)  # fmt: skip
def test_what_is_no_address_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match=r"upstream (is|holds) ") as error:
        upstream_of(url)
    assert "\n" not in str(error.value)


def test_addresses_and_their_files(tmp_path: Path) -> None:
    assert upstream_of("http://[::1]:8080/")._host == b"[::1]:8080"
    assert (upstream_of("https://Models.example").host, upstream_of("http://a").port) == (
        "models.example", 80,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="password") as error:
        upstream_of("http://user:hunter2@a")
    assert "hunter2" not in str(error.value)
    (tmp_path / "bad.pem").write_text("nothing")
    for files in ({"ca": tmp_path / "none.pem"}, {"certificate": tmp_path / "bad.pem"}):
        with pytest.raises(ConfigError, match=r"cannot be used .*; give a PEM file"):
            upstream_of("https://a", **files)
    with pytest.raises(ConfigError, match="write https://"):
        upstream_of("http://a", ca=tmp_path / "bad.pem")
