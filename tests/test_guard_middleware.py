"""The guard inside somebody's own server, and as a plain function."""

from __future__ import annotations

import asyncio
import json
import runpy
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request as Asking
from urllib.request import urlopen

import numpy as np
import orjson
import pytest
from guarding import CONFIGURED, EXAMPLES, scores, served, v2_answer, v2_body
from hypothesis import given
from hypothesis import strategies as st

from withstand._errors import ConfigError
from withstand.evidence.log import verify
from withstand.guard import (
    Call,
    Guard,
    GuardMiddleware,
    Line,
    Sensor,
    Signal,
    Upstream,
    guard_from,
)
from withstand.guard.wire import Limits, read_rows, read_v2

X = np.linspace(0, 1, 8).reshape(2, 4)
INFER = "/v2/models/m/infer"


class Own:
    """Somebody's application: it echoes, and answers inference by any path that looks like it."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], bytes]] = []
        self.life: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for told in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{told}"
                self.life.append(told)
                await send({"type": f"lifespan.{told}.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.seen.append((dict(scope), body))
        answer, kind = body, b"text/plain"
        if scope["path"].lower().rstrip("/").endswith("infer"):
            length = dict(scope["headers"]).get(b"inference-header-content-length")
            asked = read_v2(body, length and length.decode(), Limits())
            answer, kind = v2_answer(scores(asked.inputs[0].values), asked.id), b"application/json"
        elif scope["path"] == "/predict":
            found = scores(read_rows(body, "v1", Limits()).inputs[0].values)
            answer, kind = orjson.dumps({"predictions": found.tolist()}), b"application/json"
        headers = [(b"content-type", kind), (b"x-own", b"yes")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def make(upstream: Upstream, **more: Any) -> Guard:
    return Guard({"m": Line(mode="enforce", upstream=upstream, **more)})


def call(app: Any, path: str, body: bytes = b"", method: str = "POST", **scope: Any) -> Any:
    """Status, headers and body of an application's answer."""
    arrived = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"content-length", b"%d" % len(body))], **scope,
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(arrived, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m["body"] for m in sent[1:])


def test_inference_is_guarded_in_its_canonical_form() -> None:
    app = Own()
    guarded = GuardMiddleware(app, make)
    sloppy = v2_body(X, id="7").replace(b":", b" :\n")
    headers = [
        (b"content-length", b"%d" % len(sloppy)), (b"Content-Type", b"text/odd"),
        (b"x-user", b"ann"), (b"x-withstand-flagged", b"0"),
    ]  # fmt: skip
    status, told, body = call(guarded, INFER, sloppy, headers=headers, client=("10.0.0.7", 1))
    assert (status, told[b"x-own"]) == (200, b"yes")
    found = json.loads(body)["outputs"][0]
    np.testing.assert_allclose(np.reshape(found["data"], (2, 3)), scores(X), rtol=1e-6)
    scope, seen = app.seen[0]
    assert seen == orjson.dumps(orjson.loads(seen)) != sloppy
    # Who asks is the application's business, too; what is asked is what the guard has read.
    assert (scope["client"], scope["path"]) == (("10.0.0.7", 1), INFER)
    assert dict(scope["headers"]) == {
        b"x-user": b"ann",
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(seen),
    }


def test_observing_passes_on_every_byte() -> None:
    app = Own()

    def observing(upstream: Upstream) -> Guard:
        return Guard({"m": Line(mode="observe", upstream=upstream)})

    body = v2_body(X).replace(b":", b" : ")
    headers = [(b"content-type", b"text/odd"), (b"content-length", b"%d" % len(body)), (b"a", b"b")]
    assert call(GuardMiddleware(app, observing), INFER, body, headers=headers)[0] == 200
    assert app.seen[0][1] == body
    assert dict(app.seen[0][0]["headers"]) == dict(headers)


def test_tensors_may_go_on_as_bytes() -> None:
    app = Own()
    status, _, body = call(GuardMiddleware(app, lambda up: make(up, raw=True)), INFER, v2_body(X))
    assert status == 200
    assert app.seen[0][1].endswith(X.astype("<f4").tobytes())
    assert json.loads(body)["outputs"][0]["shape"] == [2, 3]


def test_what_is_no_inference_passes_through_untouched() -> None:
    app = Own()
    guarded = GuardMiddleware(app, make)
    for method, path in (
        ("POST", "/orders"), ("GET", "/v2/models/m"), ("GET", "/v2/health/ready"), ("PUT", "/"),
        ("GET", "/docs/about"), ("POST", "/v2/repository/index"),
    ):  # fmt: skip
        scope = {"query_string": b"a=%7B", "headers": [(b"X-Case", b"Kept")], "extensions": {}}
        assert call(guarded, path, b'{"a":1,"a":2}', method, **scope)[2] == b'{"a":1,"a":2}'
        assert app.seen[-1][0].items() >= {"method": method, "path": path, **scope}.items()
    websocket = {"type": "websocket", "path": INFER}
    seen = []

    async def own(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    asyncio.run(GuardMiddleware(own, make)(websocket, None, None))  # type: ignore[arg-type]
    assert seen == [(websocket, None, None)]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/m/infer/", "//v2/models/m/infer", "/v2//models/m/infer", "/V2/Models/m/INFER",
        "/v2/models/m/./infer", "/x/../v2/models/m/infer", "/v2/models/m/inf%65r",
        "/v2%2Fmodels/m/infer", "/v2/models/m/infer;x=1", "/api/v2/models/m/infer",
        "/v2/models/m/inf%2565r", "\\v2\\models\\m\\infer", "/v2/models/a/b/infer",
        "/v2/models/m%20n/infer", f"/v2/models/{'m' * 200}/infer", "/v2/models/other/infer",
        "/v1/models/m%3Apredict", "/v1/models/m:Predict", "/Invocations", "/Predict/",
        "/v2/models/m/versions/1/infer/x/..",
    ],
)  # fmt: skip
def test_no_way_of_writing_it_leads_around_the_guard(path: str) -> None:
    app = Own()
    guarded = GuardMiddleware(app, make, paths={"/predict": "/v1/models/m:predict"})
    assert call(guarded, unquote(path), v2_body(X), raw_path=path.encode())[0] == 404
    assert call(guarded, INFER, v2_body(X), query_string=b"x=1")[0] == 404
    assert call(guarded, INFER, method="GET")[0] == 404
    assert not app.seen


CHANGES = (
    str.upper, str.title, lambda part: part + "/", lambda part: part + "/.",
    lambda part: part + "/x/..", lambda part: part + ";a=b",
    lambda part: "".join(f"%{ord(letter):02x}" for letter in part),
    lambda part: f"%25{ord(part[0]):02X}" + part[1:] if part else "%2f",
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(CHANGES)), min_size=1, max_size=3))
def test_no_change_of_a_path_leads_around_the_guard(changes: list[Any]) -> None:
    parts = INFER.split("/")
    for place, change in changes:
        parts[place] = change(parts[place])
    path = "/".join(parts)
    app = Own()
    status, _, _ = call(GuardMiddleware(app, make), unquote(path), b"{", raw_path=path.encode())
    assert (status, app.seen) == (404 if path != INFER else 400, [])


def test_paths_of_its_own_and_below_a_root() -> None:
    app = Own()
    guarded = GuardMiddleware(app, make, paths={"/predict": "/v1/models/m:predict"})
    status, _, body = call(guarded, "/predict", orjson.dumps({"instances": X.tolist()}))
    assert status == 200
    np.testing.assert_allclose(json.loads(body)["predictions"], scores(X), rtol=1e-6)
    assert app.seen[-1][0]["path"] == "/predict"
    assert call(guarded, "/predict", b'{"instances":[[1,2],[3]]}')[0] == 400
    assert call(guarded, f"/api{INFER}", v2_body(X), root_path="/api")[0] == 200
    assert call(guarded, INFER, v2_body(X), raw_path=None)[0] == 200
    for wrong in ("/v2", "/predict", "/v2/models/m/infer?x=1"):
        with pytest.raises(ConfigError, match="no path for inference"):
            GuardMiddleware(app, make, paths={"/predict": wrong})
    for wrong in ("predict", "/predict/{id}", "/pre%64ict", "/predict?x", ""):
        with pytest.raises(ConfigError, match="no plain path"):
            GuardMiddleware(app, make, paths={wrong: INFER})
    with pytest.raises(ConfigError, match="'n', which the guard does not know; it knows m"):
        GuardMiddleware(app, make, paths={"/predict": "/v1/models/n:predict"})
    GuardMiddleware(app, make, paths={"/predict": "/invocations"})


class Suspects(Sensor):
    """Flags whose first number is above a half."""

    name, action = "suspects", "block"

    def look(self, call: Call) -> Signal:
        score = float(call.asked.inputs[0].values.ravel()[0])
        return Signal(self.name, score, 0.5, score > 0.5)


def test_the_whole_pipeline_stands_in_front() -> None:
    app = Own()
    guarded = GuardMiddleware(app, lambda up: make(up, sensors=(Suspects(),)))
    assert call(guarded, INFER, v2_body(X))[0] == 200
    status, _, body = call(guarded, INFER, v2_body(X + 0.6))
    assert (status, json.loads(body)) == (403, {"error": "this request was refused"})
    assert call(guarded, INFER, b'{"inputs":[],"inputs":[]}')[0] == 400
    assert call(guarded, INFER, v2_body(X), headers=[(b"content-encoding", b"gzip")])[0] == 415
    small = GuardMiddleware(app, make, body=50)
    assert call(small, INFER, v2_body(X))[0] == 413
    assert len(app.seen) == 1


def test_requests_at_one_time_do_not_mix() -> None:
    app = Own()
    guarded = GuardMiddleware(app, make)

    async def one(number: int) -> Any:
        body, sent = v2_body(X + number, id=str(number)), []
        headers = [(b"x-user", b"%d" % number)]

        async def receive() -> Any:
            await asyncio.sleep(0.001 * (number % 3))
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": INFER, "raw_path": INFER.encode(),
                 "query_string": b"", "headers": headers}  # fmt: skip
        await guarded(scope, receive, send)
        return json.loads(sent[1]["body"])["id"]

    async def main() -> Any:
        return await asyncio.gather(*(one(number) for number in range(20)))

    assert asyncio.run(main()) == [str(number) for number in range(20)]
    for scope, body in app.seen:
        assert dict(scope["headers"])[b"x-user"].decode() == json.loads(body)["id"]


def test_the_guard_ends_with_the_application() -> None:
    closed = []

    class Closing(Suspects):
        def close(self) -> None:
            closed.append(1)

    app = Own()
    guarded = GuardMiddleware(app, lambda up: make(up, sensors=(Closing(),)))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def main() -> None:
        told = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(told)

        await guarded({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    assert (app.life, closed) == (["startup", "shutdown"], [1])
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_it_serves_on_a_socket() -> None:
    with served(GuardMiddleware(Own(), make)) as port:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{port}"
        with urlopen(Asking(url + INFER, v2_body(X)), timeout=5) as answer:
            found = json.load(answer)["outputs"][0]["data"]
        with urlopen(Asking(url + "/orders?a=b", b"order"), timeout=5) as answer:
            assert answer.read() == b"order"
        with pytest.raises(HTTPError, match="404") as refused:
            urlopen(Asking(url + "/v2/models/m/inf%65r", v2_body(X)), timeout=5)
        refused.value.close()
    np.testing.assert_allclose(np.reshape(found, (2, 3)), scores(X), rtol=1e-6)


def test_a_file_configures_the_guard_inside(tmp_path: Path) -> None:
    (tmp_path / "withstand.yaml").write_text(CONFIGURED)
    make = partial(guard_from, tmp_path / "withstand.yaml")
    app = Own()
    guarded = GuardMiddleware(app, make)
    assert call(guarded, INFER, v2_body(X))[0] == 200
    guarded.guard.close()
    found = verify(tmp_path / "evidence")
    assert (found.unclean, found.faults) == (0, ())
    (tmp_path / "withstand.yaml").write_text("guard: {mode: enforced}")
    with pytest.raises(ConfigError, match="mode"):
        GuardMiddleware(app, make)


def test_the_example_of_a_server() -> None:
    app = runpy.run_path(str(EXAMPLES / "guard_middleware.py"))["app"]
    body = orjson.dumps({"instances": X.tolist()})
    with served(app) as port:
        url = f"http://127.0.0.1:{port}"
        with urlopen(Asking(url + "/predict", body), timeout=5) as answer:
            assert np.shape(json.load(answer)["predictions"]) == (2, 3)
            assert "ratelimit" in answer.headers
        with urlopen(url + "/else", timeout=5) as answer:
            assert json.load(answer) == {"hello": "this is no model"}
        with pytest.raises(HTTPError, match="413") as refused:
            urlopen(Asking(url + "/predict", orjson.dumps({"instances": [[0] * 4] * 65})))
        refused.value.close()
