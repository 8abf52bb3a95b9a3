"""What servers tell of themselves; applications and functions in the place of one."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from guarding import WEIGHTS, v2_body
from test_guard_upstream import QUICK

from withstand.guard import Answer, Guard, Line, Request, UpstreamError
from withstand.guard.upstream import (
    AppUpstream,
    Declared,
    FunctionUpstream,
    Patience,
    binary_support,
    inputs_of,
    read_inputs,
)

X = np.linspace(0, 1, 8).reshape(2, 4)


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
        ([], None),
        (b"nothing", None),
        (b" " * 70_000 + b'{"extensions": ["binary_tensor_data"]}', None),
    ):
        assert asyncio.run(binary_support(Telling(told))) is wanted
    telling = Telling({"extensions": ["binary_tensor_data"]}, 404)
    assert asyncio.run(binary_support(telling)) is None
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


def test_what_is_no_metadata_says_nothing_of_inputs() -> None:
    for telling in (Telling({"inputs": [PIXELS]}, 503), Telling({}, 404), Telling(b"<html>"),
                    Telling([])):  # fmt: skip
        assert read_inputs(telling.answer) is None
    assert read_inputs(Telling({}).answer) == ()


TRACE = b"Traceback (most recent call last):\n  File x\nValueError: 60 features"
NOTHING = "the model server could not answer this request"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b'{"error":"no such output"}', {"error": "no such output"}),
        (b'{"detail":[{"loc":["body",1]}]}', {"detail": [{"loc": ["body", 1]}]}),
        (b"Internal Server Error\n", {"error": "Internal Server Error"}),
        (TRACE, {"error": NOTHING}),
        (encoded({"error": TRACE.decode()}), {"error": NOTHING}),
        (b"<html>nginx</html>", {"error": NOTHING}),
        (b'["error"]', {"error": '["error"]'}),
        (b"\xff\x00", {"error": NOTHING}), (b"", {"error": NOTHING}),
        (b"x" * 1000, {"error": NOTHING}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_errors_of_a_server_come_as_json(said: bytes, told: Any, method: str) -> None:
    telling = Telling(said, 500)
    telling.answer.headers.extend([(b"content-type", b"text/html"), (b"x-own", b"yes")])
    guard = Guard({"m": Line(mode="enforce", upstream=telling)})
    path = "/v2/models/m" + ("/infer" if method == "POST" else "")
    answer = asyncio.run(guard.answer(Request(method, path, [], v2_body(X))))
    assert (answer.status, json.loads(answer.body)) == (500, told)
    assert dict(answer.headers) == {b"content-type": b"application/json", b"x-own": b"yes"}


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
