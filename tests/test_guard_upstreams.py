"""Upstreams besides plain http: TLS, an application and a function in the same process."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Authority
from guarding import WEIGHTS, v2_body
from test_guard_upstream import GOOD, LIES, QUICK, Server, asked

from withstand._errors import ConfigError
from withstand.guard import Answer, Guard, Line, Request, UpstreamError
from withstand.guard.upstream import (
    AppUpstream,
    Declared,
    FunctionUpstream,
    HttpPool,
    Patience,
    binary_support,
    inputs_of,
    read_inputs,
    upstream_of,
)

X = np.linspace(0, 1, 8).reshape(2, 4)


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
    from test_guard_upstream import with_server

    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
    server = Server(moved, GOOD)

    async def work(upstream: HttpPool) -> tuple[Any, bytes]:
        return await refused(upstream), (await asked(upstream)).body

    assert with_server(server, work) == ((502, "upstream_redirects"), b"ok")
    assert server.connections == 1
    zipped = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"
    assert with_server(Server(zipped), refused) == (502, "upstream_lies")


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_guard_upstream import with_server

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


class Telling:
    """Answers everything with the same JSON."""

    def __init__(self, told: Any, status: int = 200) -> None:
        self.answer = Answer(status, [], told if isinstance(told, bytes) else encoded(told))
        self.asked: list[str] = []

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        self.asked.append(f"{method} {target}")
        return self.answer

    def close(self) -> None:
        return None


def encoded(told: Any) -> bytes:
    return json.dumps(told).encode()


PIXELS = {"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}


def test_binary_tensors_only_where_the_server_says_so() -> None:
    for told, wanted in (
        ({"name": "triton", "extensions": ["classification", "binary_tensor_data"]}, True),
        ({"name": "kserve", "extensions": ["model_repository_extension"]}, False),
        ({"extensions": []}, False),
        ({"extensions": "binary_tensor_data"}, False),
        ({"extensions": None}, False),
        ([], False),
        (b"nothing", False),
        (b" " * 70_000 + b'{"extensions": ["binary_tensor_data"]}', False),
    ):
        assert asyncio.run(binary_support(Telling(told))) is wanted
    telling = Telling({"extensions": ["binary_tensor_data"]}, 404)
    assert not asyncio.run(binary_support(telling))
    assert telling.asked == ["GET /v2"]


def test_inputs_as_the_server_declares_them() -> None:
    telling = Telling({"name": "m", "inputs": [PIXELS, {**PIXELS, "name": "b"}]})
    assert asyncio.run(inputs_of(telling, "m")) == (
        Declared("pixels", "FP32", (-1, 64)),
        Declared("b", "FP32", (-1, 64)),
    )
    assert telling.asked == ["GET /v2/models/m"]


@pytest.mark.parametrize(
    "inputs",
    [
        [], None, {}, "pixels", [PIXELS, PIXELS], [PIXELS] * 17, [PIXELS, {}], [[1]],
        [{**PIXELS, "name": ""}], [{**PIXELS, "name": 1}], [{**PIXELS, "datatype": "FP8"}],
        [{**PIXELS, "datatype": None}], [{**PIXELS, "shape": []}], [{**PIXELS, "shape": [0]}],
        [{**PIXELS, "shape": [-2]}], [{**PIXELS, "shape": [True]}], [{**PIXELS, "shape": [1.0]}],
        [{**PIXELS, "shape": "64"}], [{**PIXELS, "shape": [1] * 9}],
    ],
)  # fmt: skip
def test_what_cannot_be_believed_teaches_nothing(inputs: Any) -> None:
    assert read_inputs(Telling({"inputs": inputs}).answer) == ()


Sent = list[dict[str, Any]]


def application(*messages: dict[str, Any], pause: float = 0.0, error: bool = False) -> Any:
    """An application that sends so many messages, and remembers what came."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        app.seen.append((scope, await receive()))  # type: ignore[attr-defined]
        await asyncio.sleep(pause)
        if error:
            raise ValueError("secret")
        for message in messages:
            await send(message)
        if BODY in messages:
            app.last.append(await receive())  # type: ignore[attr-defined]

    app.seen, app.last = [], []  # type: ignore[attr-defined]
    return app


START = {"type": "http.response.start", "status": 200, "headers": [(b"X-Kept", b"yes")]}
BODY = {"type": "http.response.body", "body": b"ok"}


def ask_app(app: Any, patience: Patience = QUICK) -> Answer:
    async def main() -> Answer:
        upstream = AppUpstream(app, patience=patience)
        try:
            return await upstream.ask("POST", "/v2/models/m/infer?x=1", [(b"a", b"b")], b"body")
        finally:
            await asyncio.sleep(0.01)
            assert not upstream._running
            upstream.close()

    return asyncio.run(main())


def test_an_application_is_asked_as_a_server_would() -> None:
    part = {"type": "http.response.body", "body": b"", "more_body": True}
    app = application(START, part, BODY)
    assert ask_app(app) == Answer(200, [(b"x-kept", b"yes")], b"ok")
    scope, message = app.seen[0]
    assert (scope["method"], scope["path"]) == ("POST", "/v2/models/m/infer")
    assert scope["query_string"] == b"x=1"
    assert dict(scope["headers"]) == {b"host": b"localhost", b"a": b"b", b"content-length": b"4"}
    assert message == {"type": "http.request", "body": b"body", "more_body": False}
    assert app.last == [{"type": "http.disconnect"}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "upstream_closed"), ([START], "upstream_closed"), ([BODY], "upstream_lies"),
        ([START, START], "upstream_lies"), ([{**START, "status": 101}, BODY], "upstream_lies"),
        ([START, {**BODY, "body": bytes(2000)}], "upstream_lies"),
        ([{**START, "headers": [(b"content-length", b"3")]}, BODY], "upstream_lies"),
        ([{**START, "headers": [(b"content-encoding", b"gzip")]}, BODY], "upstream_lies"),
        ([{**START, "status": 302}, BODY], "upstream_redirects"),
    ],
)  # fmt: skip
def test_an_application_that_lies_is_not_passed_on(messages: Sent, reason: str) -> None:
    with pytest.raises(UpstreamError) as error:
        ask_app(application(*messages))
    assert (error.value.status, error.value.reason) == (502, reason)


def test_an_application_that_fails_or_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    for app, told in (
        (application(error=True), (502, "upstream_failed")),
        (application(START, BODY, pause=5), (504, "upstream_slow")),
    ):
        with pytest.raises(UpstreamError) as error:
            ask_app(app)
        assert (error.value.status, error.value.reason) == told
    assert "ValueError: secret" in caplog.text


def test_there_are_never_more_requests_in_an_application_than_allowed() -> None:
    now = most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1
        await send(START)
        await send(BODY)

    async def main() -> int:
        upstream = AppUpstream(app, patience=QUICK)
        answers = await asyncio.gather(*(upstream.ask("GET", "/v2", []) for _ in range(8)))
        return sum(answer.body == b"ok" for answer in answers)

    assert asyncio.run(main()) == 8
    assert most == QUICK.connections == 2


def predict(inputs: dict[str, Any]) -> dict[str, Any]:
    scores = next(iter(inputs.values())) @ WEIGHTS
    return {"scores": scores.astype(np.float32), "label": scores.argmax(1)}


@pytest.fixture
def function() -> Iterator[FunctionUpstream]:
    made = FunctionUpstream(predict)
    yield made
    made.close()


def ask_function(upstream: FunctionUpstream, body: bytes, path: str = "/v2/models/m/infer") -> Any:
    guard = Guard({"": Line(mode="enforce", upstream=upstream, raw=path.startswith("/v2"))})
    return asyncio.run(guard.answer(Request("POST", path, [], body)))


def test_a_function_speaks_every_format(function: FunctionUpstream) -> None:
    wanted = X.astype(np.float32) @ WEIGHTS
    answer = json.loads(ask_function(function, v2_body(X, id="7")).body)
    assert (answer["model_name"], answer["id"]) == ("m", "7")
    scores, label = answer["outputs"]
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("scores", "FP32", [2, 3])
    np.testing.assert_allclose(np.reshape(scores["data"], (2, 3)), wanted, rtol=1e-6)
    assert label == {
        "name": "label", "shape": [2], "datatype": "INT64", "data": wanted.argmax(1).tolist(),
    }  # fmt: skip
    only = json.loads(ask_function(function, v2_body(X, outputs=[{"name": "label"}])).body)
    assert only["outputs"] == [label]
    for path, key in (("/v1/models/m:predict", "instances"), ("/invocations", "inputs")):
        told = json.loads(ask_function(function, encoded({key: X.tolist()}), path).body)
        np.testing.assert_allclose(told["predictions"], X @ WEIGHTS, rtol=1e-6)
    raw = ask_function(function, v2_body(X, parameters={"binary_data_output": True}))
    length = int(dict(raw.headers)[b"inference-header-content-length"])
    found = np.frombuffer(raw.body[length : length + 24], "<f4").reshape(2, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert ask_function(function, v2_body(X, outputs=[{"name": "no"}])).status == 400


def test_a_function_tells_of_itself(function: FunctionUpstream) -> None:
    async def main() -> list[Any]:
        return [
            (await function.ask("GET", path, [])).status
            for path in ("/v2", "/v2/health/live", "/v2/models/m", "/v2/models/m/ready", "/ping")
        ] + [await binary_support(function), await inputs_of(function, "m")]

    assert asyncio.run(main()) == [200] * 5 + [True, ()]


@pytest.mark.parametrize(
    "faulty",
    [
        lambda _: 1 / 0, lambda _: {}, lambda _: None, lambda _: {"y": "text"},
        lambda _: {"y": np.float32(1)}, lambda _: {"y": np.array([None])},
        lambda _: (_ for _ in ()).throw(TimeoutError),
    ],
)  # fmt: skip
def test_a_function_that_fails_is_502(faulty: Any, caplog: pytest.LogCaptureFixture) -> None:
    function = FunctionUpstream(faulty)
    assert ask_function(function, v2_body(X)).status == 502
    assert "the model behind the guard failed" in caplog.text
    function.close()


def test_what_a_function_answers_is_checked_too() -> None:
    function = FunctionUpstream(lambda inputs: {"y": np.full((2, 3), np.nan)})
    assert ask_function(function, v2_body(X)).status == 502
    function.close()


def test_a_slow_function_ends_in_time_and_others_wait_for_its_thread() -> None:
    let_go = threading.Event()

    def slow(inputs: dict[str, Any]) -> dict[str, Any]:
        let_go.wait(10)
        return predict(inputs)

    function = FunctionUpstream(slow, patience=Patience(total=0.2))
    began = time.monotonic()
    found = [ask_function(function, v2_body(X)).status for _ in range(2)]
    assert found == [504, 504]
    assert time.monotonic() - began < 5
    let_go.set()
    for _ in range(50):
        if ask_function(function, v2_body(X)).status == 200:
            break
    else:
        pytest.fail("the thread did not come back")
    function.close()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "withstand.guard")
