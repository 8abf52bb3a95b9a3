"""The published description of the guard is what it keeps to, whatever is sent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from guarding import v2_answer
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand.guard import Answer, Guard, Line, Request, openapi
from withstand.guard._routes import find_route
from withstand.guard.wire import Limits, read_rows, read_v2

ROOT = Path(__file__).parents[1]
TOLD = openapi()
OPERATIONS = [
    (method.upper(), path, told)
    for path, operations in TOLD["paths"].items()
    for method, told in operations.items()
]
ASKING = [one for one in OPERATIONS if one[0] == "POST"]
JSON = [(b"content-type", b"application/json")]


class Strict:
    """A model server that fails on any request that is not in the canonical form."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        self.asked += 1
        if method == "GET":
            return Answer(200, JSON, b"{}")
        length = dict(headers).get(b"inference-header-content-length")
        if target.endswith("/infer"):
            read_v2(body, length.decode() if length else None, Limits())
            return Answer(200, JSON, v2_answer(np.full((1, 3), 1 / 3)))
        read_rows(body, "mlflow" if target == "/invocations" else "v1", Limits())
        return Answer(200, JSON, b'{"predictions":[0]}')

    def close(self) -> None:
        pass


def resolved(schema: Any) -> Any:
    if isinstance(schema, dict) and "$ref" in schema:
        return TOLD["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip


def fitting(schema: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that a schema of the description allows, and now and then others."""
    schema = resolved(schema)
    odd = st.sampled_from([None, -1, 2**64, 1e300, "NaN", [], {}, [[1], [2, 3]], "\ud800", True])
    return st.integers(0, 19).flatmap(
        lambda luck: odd if luck == 0 else ANYTHING if luck == 1 else _right(schema, depth)
    )


def _right(schema: Any, depth: int) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        choices = schema["anyOf"][: 1 if depth > 3 else None]
        return st.one_of([fitting(one, depth + 1) for one in choices])
    kind = schema.get("type")
    if isinstance(kind, list):
        return LEAVES
    if kind == "array":
        return st.lists(fitting(schema.get("items", {}), depth + 1), max_size=4)
    if kind == "integer":
        return st.integers(1, 4)
    if kind == "string":
        return st.sampled_from(["x", "y", ""]) | st.text(max_size=5)
    if kind == "object" and "properties" in schema:
        known = {name: fitting(one, depth + 1) for name, one in schema["properties"].items()}
        needed = {name: known.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=known)
    return st.dictionaries(st.sampled_from(["a", "binary_data_size", "binary_data"]), LEAVES)


@st.composite
def sound(draw: Any, path: str) -> Any:
    """A body that fits together, which independent draws hardly ever do."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    numbers = st.integers(0, 100) | st.floats(-1e30, 1e30)
    data: Any = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    if "infer" not in path:
        return {"instances": np.reshape(data, (rows, columns)).tolist()}
    datatype = draw(st.sampled_from(["FP32", "FP64", "INT64", "BYTES"]))
    if datatype == "INT64":
        data = [int(abs(n)) % 2**31 for n in data]
    elif datatype == "BYTES":
        data = draw(st.lists(st.text(max_size=4), min_size=len(data), max_size=len(data)))
    told = {"name": "x", "datatype": datatype, "shape": [rows, columns]}
    return {"inputs": [{**told, "data": data}]}


@st.composite
def requests(draw: Any) -> Request:
    method, path, told = draw(st.sampled_from(OPERATIONS) | st.sampled_from(ASKING))
    for name in ("model", "version"):
        names = st.just("m") | st.sampled_from(["1", "a.b", "..", "%2e", ""])
        path = path.replace(f"{{{name}}}", draw(names))
    content = told.get("requestBody", {}).get("content", {})
    body = b""
    if content:
        value = draw(sound(path) | fitting(content["application/json"]["schema"]))
        body = json.dumps(value).encode("utf-8", "surrogatepass")
    headers = [(b"content-type", b"application/json")]
    harm = draw(st.integers(0, 11))
    if harm == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 3)) :]
    elif harm == 1:
        lengths = [b"0", b"-1", b"5", b"999999", b"1e3", b"\xb2", str(len(body)).encode()]
        headers.append((b"inference-header-content-length", draw(st.sampled_from(lengths))))
        body += draw(st.binary(max_size=16))
    elif harm == 2:
        headers.append((b"content-encoding", draw(st.sampled_from([b"gzip", b"identity", b""]))))
        method = draw(st.sampled_from([method, "PUT", "GET", "POST", "DELETE"]))
    return Request(method, path, headers, body)


@settings(max_examples=200, deadline=None)
@given(requests(), st.sampled_from(["enforce", "shadow"]))
def test_whatever_is_sent_the_answer_is_one_that_is_described(request: Request, mode: Any) -> None:
    upstream = Strict()
    guard = Guard({"": Line(mode=mode, upstream=upstream, raw=mode == "enforce")})
    answer = asyncio.run(guard.answer(request))
    described = {int(status) for _, _, told in OPERATIONS for status in told["responses"]
                 if status.isdecimal()}  # fmt: skip
    assert answer.status in described
    # The model server accepts all that is passed on: what is malformed never gets to it.
    assert answer.status < 500, answer
    if answer.status != 200:
        assert upstream.asked == 0
        assert set(json.loads(answer.body)) == {"error"}
    assert guard.metrics.counts["requests"][("", _tenant(guard), str(answer.status))] == 1


def _tenant(guard: Guard) -> str:
    ((_, tenant, _),) = guard.metrics.counts["requests"]
    return tenant


def test_the_description_is_sound_and_of_what_there_is() -> None:
    published = ROOT / "docs" / "reference" / "guard.openapi.json"
    assert json.loads(published.read_text()) == TOLD
    for schema in TOLD["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for method, path, _ in OPERATIONS:
        path = path.replace("{model}", "m").replace("{version}", "1")
        assert find_route(method, path) is not None, path


@pytest.mark.parametrize("luck", [0, 1])
def test_a_defect_would_be_found(luck: int) -> None:
    """The fuzzing test fails where a reader lets through what it cannot read."""

    class Defective(Strict):
        async def ask(self, *words: Any, **more: Any) -> Answer:
            raise KeyError("a defect")

    guard = Guard({"": Line(mode="enforce", upstream=Defective())})
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
    path = "/v2/models/m/infer" if luck else "/v2"
    request = Request("POST" if luck else "GET", path, [], body if luck else b"")
    assert asyncio.run(guard.answer(request)).status == 500
