"""Real model servers behind the guard: the same answers, for clients that know nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from guarding import served
from sklearn.linear_model import LogisticRegression

from withstand._errors import ModelError
from withstand.attacks import HopSkipJump, Square, run
from withstand.data import load_sklearn
from withstand.guard import Answer, App, Guard, Line
from withstand.guard import Request as Asked
from withstand.guard.upstream import Declared, Patience, binary_support, inputs_of, upstream_of
from withstand.models import HttpModel, HttpSettings
from withstand.threat import L2, Linf, Threat

if TYPE_CHECKING:
    from .conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

X = load_sklearn("digits").x[1500:].reshape(-1, 64)
INFER = "/v2/models/digits/infer"
JSON = {"Content-Type": "application/json"}
LENGTH = "Inference-Header-Content-Length"


class Kind(NamedTuple):
    """How a server names things, what it tells of itself, and what it says to what is wrong."""

    input: str
    scores: str
    declared: tuple[Declared, ...]
    says_binary: bool
    takes_binary: bool
    shape: tuple[int, str]
    output: tuple[int, str]
    most: int


KINDS = {
    # Its own words are a stack trace.
    "mlserver": Kind("input-0", "predict_proba", (), False, False,
                     (500, "could not answer"), (400, "SKLearnModel only supports"), 1000),
    "kserve": Kind("pixels", "scores", (), False, True,
                   (500, "X has 60 features"), (400, "Unexpected inference output"), 1000),
    "triton": Kind("pixels", "scores", (Declared("pixels", "FP32", (-1, 64)),), True, True,
                   (400, "unexpected shape"), (400, "unexpected inference output"), 64),
}  # fmt: skip


@pytest.fixture
def kind(server: Server) -> Kind:
    return KINDS[server.name]


@pytest.fixture
def guards(server: Server, kind: Kind) -> Iterator[dict[bool, str]]:
    """Addresses of guards that send tensors as JSON, and as bytes if the server takes them."""
    with ExitStack() as stack:
        found = {}
        for raw in (False, True)[: 1 + kind.takes_binary]:
            upstream = upstream_of(server.url, Patience(total=20, body=2**26))
            guard = Guard({"": Line(mode="enforce", upstream=upstream, raw=raw)})
            found[raw] = f"http://127.0.0.1:{stack.enter_context(served(App(guard)))}"
            stack.callback(guard.close)
        yield found


def call(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    asked = Request(url, body, {name.replace("_", "-"): told for name, told in headers.items()})
    try:
        with urlopen(asked, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def json_body(x: Any, kind: Kind, **more: Any) -> bytes:
    tensor = {"name": kind.input, "datatype": "FP32", "shape": list(x.shape)}
    return json.dumps(
        {"id": "7", "inputs": [{**tensor, "data": x.ravel().tolist()}], **more}
    ).encode()


def raw_body(x: Any, kind: Kind, **more: Any) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": kind.input, "datatype": "FP32", "shape": list(x.shape)}
    told = {**tensor, "parameters": {"binary_data_size": x.astype("<f4").nbytes}}
    head = json.dumps({"id": "7", "inputs": [told], **more}).encode()
    return head + x.astype("<f4").tobytes(), {"Inference_Header_Content_Length": str(len(head))}


def outputs(
    answer: tuple[int, Any, bytes], model: str = "digits"
) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of an answer, from JSON or from bytes."""
    status, headers, body = answer
    assert status == 200, body
    length = headers.get(LENGTH)
    told = json.loads(body[: int(length)] if length else body)
    assert (told["model_name"], told["id"]) == (model, "7")
    tail, found = body[int(length) :] if length else b"", {}
    for one in told["outputs"]:
        size = (one.get("parameters") or {}).get("binary_data_size")
        kind = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}[one["datatype"]]
        data = one["data"] if size is None else np.frombuffer(tail[:size], kind)
        tail = tail[size or 0 :]
        found[one["name"]] = np.reshape(data, one["shape"])
    assert not tail
    return found


def same(found: Any, wanted: Any) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6)


def test_answers_are_those_without_the_guard(
    server: Server, kind: Kind, guards: dict[bool, str], classifier: LogisticRegression
) -> None:
    x = X[:20]
    wanted = outputs(call(server.url + INFER, json_body(x, kind), **JSON))
    one = [{"name": kind.scores}]
    scores = outputs(call(server.url + INFER, json_body(x, kind, outputs=one), **JSON))
    np.testing.assert_allclose(scores[kind.scores], classifier.predict_proba(x), atol=1e-6)
    raw, length = raw_body(x, kind)
    for url in guards.values():
        same(outputs(call(url + INFER, json_body(x, kind), **JSON)), wanted)
        same(outputs(call(url + INFER, json_body(x, kind, outputs=one), **JSON)), scores)
        # Also to a server that takes none, or wants to be told what it gets.
        same(outputs(call(url + INFER, raw, **length)), wanted)
        same(outputs(call(url + INFER, json_body(x, kind))), wanted)
        for more in (
            {"parameters": {"binary_data_output": True}},
            {"outputs": [{"name": kind.scores, "parameters": {"binary_data": True}}]},
        ):
            body, headers = raw_body(x, kind, **more)
            answer = call(url + INFER, body, **headers)
            assert (LENGTH in answer[1]) == kind.takes_binary
            same(outputs(answer), scores if "outputs" in more else wanted)


def test_an_onnx_model(
    server: Server, kind: Kind, guards: dict[bool, str], classifier: LogisticRegression
) -> None:
    path, x = "/v2/models/digits-onnx/infer", X[:20]
    until = time.monotonic() + 30
    while call(server.url + path[:-6] + "/ready")[0] != 200 and time.monotonic() < until:
        time.sleep(0.2)
    wanted = classifier.predict_proba(x)
    raw, length = raw_body(x, kind)
    for url in (server.url, *guards.values()):
        found = outputs(call(url + path, json_body(x, kind), **JSON), "digits-onnx")
        np.testing.assert_allclose(found["scores"], wanted, rtol=0, atol=1e-5)
        assert np.array_equal(found["label"].ravel(), wanted.argmax(1))
        if url != server.url:
            same(outputs(call(url + path, raw, **length), "digits-onnx"), found)


def test_rows_of_the_first_protocol(
    server: Server, guards: dict[bool, str], classifier: LogisticRegression
) -> None:
    body = json.dumps({"instances": X[:5].tolist()}).encode()
    direct = call(f"{server.url}/v1/models/digits:predict", body, **JSON)
    found = call(f"{guards[False]}/v1/models/digits:predict", body)
    assert (found[0], json.loads(found[2])) == (direct[0], json.loads(direct[2]))
    if server.name == "kserve":
        wanted = classifier.predict_proba(X[:5])
        np.testing.assert_allclose(json.loads(found[2])["predictions"], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready",
     "/v2/models/nope", "/v1/models/digits"],
)  # fmt: skip
def test_metadata_and_health_are_the_servers_own(
    server: Server, guards: dict[bool, str], path: str
) -> None:
    direct, found = call(server.url + path), call(guards[False] + path)
    assert found[0] == direct[0]
    assert found[2] == direct[2] or not direct[2]


def test_what_a_server_tells_of_itself(server: Server, kind: Kind) -> None:
    async def main() -> Any:
        upstream = upstream_of(server.url)
        try:
            return (
                await binary_support(upstream),
                await inputs_of(upstream, "digits"),
                await inputs_of(upstream, "nope"),
            )
        finally:
            upstream.close()
            await asyncio.sleep(0.02)

    assert asyncio.run(main()) == (kind.says_binary, kind.declared, None)


def test_its_errors_come_as_json_without_a_stack_trace(
    server: Server, kind: Kind, guards: dict[bool, str]
) -> None:
    nope = [{"name": "nope"}]
    for url in guards.values():
        for path, body, (status, words) in (
            (INFER, json_body(X[:4, :60], kind), kind.shape),
            (INFER, json_body(X[:4], kind, outputs=nope), kind.output),
            ("/v2/models/nope/infer", json_body(X[:4], kind), (404, "nope")),
        ):
            found = call(url + path, body, **JSON)
            assert found[0] == status == call(server.url + path, body, **JSON)[0]
            assert found[1]["Content-Type"] == "application/json"
            assert words in json.loads(found[2])["error"]
            assert b"Traceback" not in found[2]
        # What is no request at all never gets there.
        assert call(url + INFER, b"{", **JSON)[0] == 400
        assert call(url + "/v2/repository/index", b"{}", **JSON)[0] == 404
        assert outputs(call(url + INFER, json_body(X[:1], kind)))


def test_large_batches_and_those_that_are_too_large(
    server: Server, kind: Kind, guards: dict[bool, str], classifier: LogisticRegression
) -> None:
    x = np.resize(X, (kind.most, 64))
    wanted = classifier.predict_proba(x)
    for url in guards.values():
        raw, length = raw_body(x, kind, outputs=[{"name": kind.scores}])
        for answer in (
            call(url + INFER, json_body(x, kind, outputs=[{"name": kind.scores}])),
            call(url + INFER, raw, **length),
        ):
            np.testing.assert_allclose(outputs(answer)[kind.scores], wanted, atol=1e-6)
        if server.name == "triton":
            refused = call(url + INFER, json_body(np.resize(X, (65, 64)), kind))
            assert (refused[0], b"must be <= 64" in refused[2]) == (400, True)


def test_curl_works_unchanged(
    kind: Kind, guards: dict[bool, str], tmp_path: Path, classifier: LogisticRegression
) -> None:
    (tmp_path / "json").write_bytes(json_body(X[:3], kind, outputs=[{"name": kind.scores}]))
    raw, length = raw_body(X[:3], kind, outputs=[{"name": kind.scores}])
    (tmp_path / "raw").write_bytes(raw)
    told = f"{LENGTH}: {length['Inference_Header_Content_Length']}"
    large = tmp_path / "large"
    # Above a megabyte, curl asks whether it may go on, by Expect: 100-continue.
    large.write_bytes(b" " * 2**20 + (tmp_path / "json").read_bytes())
    for words in (["@json"], ["@raw", "-H", told], ["@json", "--http1.0"], ["@large"]):
        command = ["curl", "-sS", "--max-time", "20", guards[False] + INFER, "--data-binary"]
        said = subprocess.run([*command, *words], capture_output=True, cwd=tmp_path, check=True)
        (found,) = json.loads(said.stdout)["outputs"]
        scores = np.reshape(found["data"], found["shape"])
        np.testing.assert_allclose(scores, classifier.predict_proba(X[:3]), atol=1e-6)


def test_tritonclient_works_unchanged(
    server: Server, kind: Kind, guards: dict[bool, str], environment: Callable[[str], Path],
    tmp_path: Path, classifier: LogisticRegression,
) -> None:  # fmt: skip
    python = environment("tritonclient")
    np.save(tmp_path / "rows.npy", X[:6].astype("f4"))
    script = Path(__file__).with_name("ask_tritonclient.py")
    for url in guards.values():
        words = [url.rpartition(":")[2], kind.input, kind.scores, tmp_path / "rows.npy"]
        said = subprocess.run([python, script, *words], capture_output=True, text=True, timeout=120)
        assert said.returncode == 0, said.stderr
        told = json.loads(said.stdout)
        assert (told["live"], told["ready"], told["model"]) == (True, True, "digits")
        assert told["server"] == server.name
        assert len(told["answers"]) == 10
        for name, answer in told["answers"].values():
            wanted = classifier.predict_proba(X[:6])
            if name != kind.scores:
                wanted = classifier.predict(X[:6])[:, None]
            np.testing.assert_allclose(answer, wanted, atol=1e-6)
        assert told["error"][0] == str(kind.shape[0])
        assert kind.shape[1] in told["error"][1]


def test_our_attacks_find_the_same_through_the_guard(
    server: Server, kind: Kind, guards: dict[bool, str], classifier: LogisticRegression
) -> None:
    x = torch.from_numpy(X[:4])
    y = torch.from_numpy(classifier.predict(X[:4]))
    named = {"name": "digits", "input": kind.input, "output": kind.scores, "batch": 8}
    for attack, threat in (
        (Square(queries=60), Threat(region=Linf(0.02), access="scores", queries=60)),
        (HopSkipJump(queries=80), Threat(region=L2(np.inf), access="labels", queries=80)),
    ):
        found = []
        for url in (server.url, *guards.values()):
            for format in ("v2", "v2-binary")[: 1 + (kind.takes_binary or url != server.url)]:
                settings = HttpSettings(**{**named, "format": format})  # type: ignore[arg-type]
                model = HttpModel(url, settings)
                result = run(attack, model, x, y, threat)
                assert model.sent == int(result.ledger.forwards.sum())
                found.append(result)
                model.close()
        for result in found[1:]:
            assert torch.equal(result.x_adv, found[0].x_adv)
            assert torch.equal(result.ledger.forwards, found[0].ledger.forwards)
    model = HttpModel(guards[False], HttpSettings(**{**named, "retries": 0}))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=f"answered {kind.shape[0]}: .*{kind.shape[1]}"):
        model.scores(x[:, :60])
    model.close()


def test_a_server_that_hangs_is_not_waited_for(server: Server, kind: Kind) -> None:
    upstream = upstream_of(server.url, Patience(total=1.5))
    guard = Guard({"": Line(mode="enforce", upstream=upstream)})
    asked = Asked("POST", INFER, [], json_body(X[:2], kind))

    async def main() -> list[int]:
        statuses = [(await guard.answer(asked)).status]
        assert server.process is not None
        os.killpg(server.process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            statuses += {answer.status for answer in await many(10)}
            assert time.monotonic() - began < 20
        finally:
            os.killpg(server.process.pid, signal.SIGCONT)
        statuses.append((await retried()).status)
        guard.close()
        await asyncio.sleep(0.02)
        return statuses

    async def many(count: int) -> list[Answer]:
        return await asyncio.gather(*(guard.answer(asked) for _ in range(count)))

    async def retried() -> Answer:
        # It works off what it was asked meanwhile.
        for _ in range(20):
            answer = await guard.answer(asked)
            if answer.status == 200:
                break
        return answer

    assert asyncio.run(main()) == [200, 504, 200]


def test_a_server_that_is_killed_and_comes_back(server: Server, kind: Kind) -> None:
    guard = Guard(
        {"": Line(mode="enforce", upstream=upstream_of(server.url, Patience(total=5, connect=1)))}
    )
    asked = Asked("POST", INFER, [], json_body(X[:2], kind))

    async def main() -> list[int]:
        statuses = [(await guard.answer(asked)).status]
        many = [asyncio.ensure_future(guard.answer(asked)) for _ in range(20)]
        killing = threading.Thread(target=server.kill)
        killing.start()
        during = {answer.status for answer in await asyncio.gather(*many)}
        assert during <= {200, 502}
        await asyncio.to_thread(killing.join)
        statuses.append((await guard.answer(asked)).status)
        await asyncio.to_thread(server.start)
        statuses.append((await guard.answer(asked)).status)
        guard.close()
        await asyncio.sleep(0.02)
        return statuses

    began = time.monotonic()
    try:
        assert asyncio.run(main()) == [200, 502, 200]
    finally:
        if server.process is None:
            server.start()
    assert time.monotonic() - began < 200
