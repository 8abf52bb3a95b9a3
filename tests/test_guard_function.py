"""The guard as a plain function: for serverless handlers and servers that do not await."""

from __future__ import annotations

import asyncio
import base64
import json
import runpy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from guarding import CONFIGURED, EXAMPLES, Model, scores, v2_body

from withstand._errors import ConfigError
from withstand.evidence.log import Place, read
from withstand.guard import (
    Access,
    Call,
    Guard,
    GuardFunction,
    Keys,
    Line,
    Quota,
    Rate,
    Sensor,
    Signal,
    Upstream,
    guard_from,
)
from withstand.guard.upstream import FunctionUpstream

X = np.linspace(0, 1, 8).reshape(2, 4)
INFER = "/v2/models/m/infer"


def make(upstream: Upstream, **more: Any) -> Guard:
    return Guard({"m": Line(mode="enforce", upstream=upstream, **more)})


class Suspects(Sensor):
    """Flags whose first number is above a half."""

    name, action = "suspects", "block"

    def look(self, call: Call) -> Signal:
        score = float(call.asked.inputs[0].values.ravel()[0])
        return Signal(self.name, score, 0.5, score > 0.5)


def event(body: bytes, path: str = INFER, *, encode: bool = False, **more: Any) -> dict[str, Any]:
    """As API Gateway and function URLs send it (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "x-forwarded-for": "192.0.2.1"},
        "requestContext": {"http": {"method": "POST", "path": path}, "stage": "$default"},
        "body": base64.b64encode(body).decode() if encode else body.decode(),
        "isBase64Encoded": encode,
        **more,
    }


@pytest.fixture
def function() -> Any:
    upstream = FunctionUpstream(lambda inputs: {"probabilities": scores(*inputs.values())})
    made = GuardFunction(make(upstream, raw=True))
    yield made
    made.close()


@pytest.mark.parametrize("encode", [False, True])
def test_an_event_is_answered(function: GuardFunction, encode: bool) -> None:
    found = function(event(v2_body(X), encode=encode), None)
    assert (found["statusCode"], found["isBase64Encoded"]) == (200, False)
    assert found["headers"]["content-type"] == "application/json"
    data = json.loads(found["body"])["outputs"][0]["data"]
    np.testing.assert_allclose(np.reshape(data, (2, 3)), scores(X), rtol=1e-6)
    json.dumps(found)


def test_binary_tensors_come_and_go_encoded(function: GuardFunction) -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [2, 4]}
    told = {"inputs": [{**tensor, "parameters": {"binary_data_size": 64}}],
            "parameters": {"binary_data_output": True}}  # fmt: skip
    head = orjson.dumps(told)
    name = "inference-header-content-length"
    asked = event(head + X.tobytes(), encode=True, headers={name.title(): str(len(head))})
    found = function(asked)
    assert (found["statusCode"], found["isBase64Encoded"]) == (200, True)
    body = base64.b64decode(found["body"])
    data = np.frombuffer(body[int(found["headers"][name]) :]).reshape(2, 3)
    np.testing.assert_allclose(data, scores(X))


@pytest.mark.parametrize(
    ("faulty", "status"),
    [
        (event(b"{"), 400), (event(v2_body(X), "/v2/models/other/infer"), 404),
        (event(v2_body(X), rawQueryString="x=1"), 404), ({**event(b""), "body": None}, 400),
        ({**event(b"", encode=True), "body": "!"}, 400), ({**event(b""), "body": "\ud800"}, 400),
        (event(v2_body(X), headers={"content-encoding": "gzip"}), 415),
        (event(v2_body(X), headers={"x-odd": "\u20ac"}), 200),
        (event(v2_body(X), "/prod" + INFER), 404),
        (event(v2_body(X), "/prod" + INFER,
               requestContext={"http": {"method": "POST"}, "stage": "prod"}), 200),
        (event(v2_body(X), requestContext={"http": {"method": "GET"}}), 404),
    ],
)  # fmt: skip
def test_faulty_events_are_refused(
    function: GuardFunction, faulty: dict[str, Any], status: int
) -> None:
    found = function(faulty)
    assert found["statusCode"] == status
    assert status == 200 or set(json.loads(found["body"])) == {"error"}


def test_an_event_of_another_format_names_the_fix(function: GuardFunction) -> None:
    for other in ({}, {"version": "1.0", "httpMethod": "POST"}):
        with pytest.raises(ConfigError, match=r"payload format 2\.0"):
            function(other)


def test_keys_and_quotas_hold_for_functions(tmp_path: Any) -> None:
    keys = Keys(tmp_path / "keys.json", bytes(32))
    secret = keys.make("acme")
    access = Access(keys, Quota(Rate(requests=2, seconds=60)))
    function = GuardFunction(Guard({"m": Line(mode="enforce", upstream=Model())}, access=access))
    asked = [function.answer("POST", INFER, {"X-API-Key": secret}, v2_body(X)) for _ in range(3)]
    assert [one.status for one in asked] == [200, 200, 429]
    doubled = event(v2_body(X), headers={"x-api-key": f"{secret},{secret}"})
    assert function(doubled)["statusCode"] == 401
    function.close()
    function.close()


def test_many_threads_share_one_guard(function: GuardFunction) -> None:
    main = threading.get_ident()
    seen = set()
    upstream = Model(pause=0.01)
    asking = upstream.ask

    async def ask(*words: Any) -> Any:
        seen.add(threading.get_ident())
        return await asking(*words)

    upstream.ask = ask  # type: ignore[method-assign]
    shared = GuardFunction(make(upstream))

    def one(number: int) -> str:
        answer = shared.answer("POST", INFER, {}, v2_body(X, id=str(number)))
        return str(json.loads(answer.body)["id"])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(40))) == [str(number) for number in range(40)]
    assert len(seen) == 1
    assert main not in seen
    shared.close()
    assert upstream.closed


def test_a_function_answers_only_after_it_has_looked() -> None:
    looked = []

    class Slow(Suspects):
        def look(self, call: Call) -> Any:
            async def later() -> Signal:
                await asyncio.sleep(0.05)
                looked.append(call)
                return Signal(self.name, 0.0, 1.0, False)

            return later()

    line = Line(mode="observe", upstream=Model(), sensors=(Slow(),))
    function = GuardFunction(Guard({"m": line}))
    assert function.answer("POST", INFER, {}, v2_body(X)).status == 200
    assert len(looked) == 1
    function.close()


def test_evidence_is_kept_before_the_answer(tmp_path: Path) -> None:
    (tmp_path / "withstand.yaml").write_text(CONFIGURED)
    upstream = FunctionUpstream(lambda inputs: {"probabilities": scores(*inputs.values())})
    function = GuardFunction(guard_from(tmp_path / "withstand.yaml", upstream))
    assert function(event(v2_body(X)))["statusCode"] == 200
    places = [one for one in read(tmp_path / "evidence") if isinstance(one, Place)]
    assert sum(one.record.kind == "decision" for one in places) == 1
    function.close()


def test_the_example_of_a_function() -> None:
    handler = runpy.run_path(str(EXAMPLES / "guard_function.py"))["handler"]
    assert handler(event(v2_body(X), "/v2/models/digits/infer"))["statusCode"] == 200
    assert handler(event(v2_body(X[:, :3]), "/v2/models/digits/infer"))["statusCode"] == 400
    handler.close()
