"""Events out fit their schema; events in are joined, bounded, and never taken for our own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as Asking
from urllib.request import urlopen

import jsonschema
import numpy as np
import pytest
from guarding import Model, guarded, scores, served, v2_answer, v2_body
from typer.testing import CliRunner

from withstand._errors import EvidenceError
from withstand.cli._main import app
from withstand.evidence.log import (
    Break,
    Log,
    Record,
    Vault,
    cloud_event,
    event_schema,
    read,
    unpack,
    verify,
)
from withstand.guard import EvidenceJournal, Guard, Request
from withstand.guard.journal import Event, EventSink, Imports, event_of_http, event_of_json
from withstand.guard.wire import Inference

ROOT = Path(__file__).parents[1]
X = np.float32([[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]])
REQUEST, RESPONSE = (f"org.kubeflow.serving.inference.{kind}" for kind in ("request", "response"))


def records(folder: Path) -> list[Record]:
    return [place.record for place in read(folder) if not isinstance(place, Break)]


def event(identity: str, kind: str, body: bytes, **attributes: str) -> Event:
    return Event(id=identity, kind=kind, attributes=attributes, media="application/json", body=body)


class Kept:
    """Takes records in memory."""

    def __init__(self) -> None:
        self.contents: list[dict[str, Any]] = []
        self.asked: list[Inference | None] = []

    def __call__(self, content: dict[str, Any], asked: Inference | None) -> bool:
        self.contents.append(json.loads(json.dumps(content)))
        self.asked.append(asked)
        return True


def cli(*words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["evidence", *words])
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        return 2, str(told.exception)
    return told.exit_code, told.output


def test_the_events_of_a_guard_fit_their_published_schema(tmp_path: Path) -> None:
    schema = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads((ROOT / "docs/reference/events.schema.json").read_text()) == schema
    journal = EvidenceJournal(Log(tmp_path / "log"), inputs="none")
    guard = guarded(Model())
    guard = Guard(guard.lines, journal=journal)
    for body in (v2_body(X), b"nonsense"):
        asyncio.run(guard.answer(Request("POST", "/v2/models/m/infer", [], body)))
    journal.note(
        {"id": "1", "decision": "refuse", "done": ["quarantine"]}, flagged=True, asked=None
    )
    journal.close()
    file = tmp_path / "events.jsonl"
    code, told = cli("export", str(tmp_path / "log"), "--output", str(file), "--events", "/g/1")
    assert code == 0, told
    found = [json.loads(line) for line in file.read_text().splitlines()]
    check = jsonschema.Draft202012Validator(schema)
    for one in found:
        check.validate(one)
        assert one["data"]["hash"] == one["id"]
    assert len({one["id"] for one in found}) == len(found) == 5
    assert [one["type"].removeprefix("io.withstand.") for one in found] == [
        "evidence.boot", "guard.decision", "guard.decision", "guard.quarantine", "evidence.close",
    ]  # fmt: skip
    assert (found[1]["subject"], found[1]["source"]) == ("m", "/g/1")
    for missing in ("id", "source", "data"):
        with pytest.raises(jsonschema.ValidationError):
            check.validate({name: value for name, value in found[1].items() if name != missing})
    del found[1]["data"]["content"]["decision"]
    with pytest.raises(jsonschema.ValidationError):
        check.validate(found[1])


def test_our_own_events_are_not_taken_for_those_of_a_logger(tmp_path: Path) -> None:
    Log(tmp_path).close()
    told = json.dumps(cloud_event(records(tmp_path)[0], "/g")).encode()
    with pytest.raises(EvidenceError, match=r"of type 'io\.withstand"):
        event_of_json(told)


HEADERS = {
    "ce-specversion": "1.0", "ce-id": "7", "ce-source": "http://localhost/", "ce-type": REQUEST,
    "ce-inferenceservicename": "digits", "ce-namespace": "prod", "content-type": "application/json",
}  # fmt: skip


def pairs(told: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in told.items()]


def test_binary_and_structured_form_are_the_same_event() -> None:
    body = v2_body(X)
    binary = event_of_http(pairs(HEADERS), body)
    told = {name[3:]: value for name, value in HEADERS.items() if name.startswith("ce-")}
    told["datacontenttype"] = "application/json"
    packed = {**told, "data_base64": base64.b64encode(body).decode()}
    assert event_of_json(json.dumps(packed).encode()) == binary
    media = [(b"content-type", b"application/cloudevents+json; charset=utf-8")]
    assert event_of_http(media, json.dumps(packed).encode()) == binary
    plain = event_of_json(json.dumps({**told, "data": json.loads(body)}).encode())
    assert json.loads(plain.body) == json.loads(binary.body)
    assert (binary.id, binary.kind) == ("7", "request")
    assert binary.attributes["inferenceservicename"] == "digits"


@pytest.mark.parametrize(
    ("change", "words"),
    [({"ce-id": ""}, "has no id"), ({"ce-type": "x"}, "of type 'x'"),
     ({"ce-specversion": "0.3"}, r"version '0\.3'"), ({"ce-source": ""}, "has no source")],
)  # fmt: skip
def test_what_is_no_such_event_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        event_of_http(pairs(HEADERS | change), b"{}")


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b'{"id": 7}', b'{"data_base64": "#"}'])
def test_what_is_no_json_of_an_event_is_refused(text: bytes) -> None:
    with pytest.raises(EvidenceError):
        event_of_json(text)


def test_requests_are_joined_with_their_answers_in_any_order() -> None:
    kept = Kept()
    imports = Imports(kept)
    asked, answered = v2_body(X), v2_answer(scores(X))
    imports.take(event("1", "request", asked, inferenceservicename="digits"))
    imports.take(event("2", "response", answered))
    imports.take(event("1", "request", asked))
    assert kept.contents == []
    imports.take(event("2", "request", asked))
    imports.take(event("1", "response", answered))
    assert [one["id"] for one in kept.contents] == ["2", "1"]
    found = kept.contents[1]
    assert found["model"] == "digits"
    assert found["labels"] == scores(X).argmax(1).tolist()
    assert found["tensors"] == [["x", "FP32", [2, 4]]]
    assert found["request"]["sha256"] == hashlib.sha256(asked).hexdigest()
    (tensor,) = kept.asked[1].inputs  # type: ignore[union-attr]
    np.testing.assert_array_equal(tensor.values, X)
    # The same number of another logger is another request.
    imports.take(event("3", "request", asked, source="a"))
    imports.take(event("3", "response", answered, source="b"))
    imports.close()
    counts = imports.counts
    assert (counts.pairs, counts.alone, counts.repeated, counts.lost) == (2, 2, 1, 0)
    assert ["request" in one for one in kept.contents[2:]] == [True, False]


@pytest.mark.parametrize(
    ("body", "answer"),
    [(b'{"instances": [[1, 2]]}', b'{"predictions": [3]}'),
     (b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}}', b'{"predictions": [3]}')],
)  # fmt: skip
def test_other_formats_are_read_too(body: bytes, answer: bytes) -> None:
    kept = Kept()
    imports = Imports(kept)
    imports.take(event("1", "request", body))
    imports.take(event("1", "response", answer))
    assert kept.contents[0]["labels"] == [3]


@pytest.mark.parametrize("body", [b"\xff\x00", b"", b'{"inputs": [{"datatype": "FP32"}]}'])
def test_what_cannot_be_read_is_still_written_down(body: bytes) -> None:
    kept = Kept()
    imports = Imports(kept)
    imports.take(event("1", "request", body))
    imports.take(event("1", "response", b"{}"))
    assert kept.contents[0]["unread"]
    assert kept.contents[0]["request"]["bytes"] == len(body)
    assert kept.asked == [None]


def test_what_waits_for_its_half_is_bounded() -> None:
    kept = Kept()
    imports = Imports(kept, most=10, most_bytes=10_000)
    for number in range(50):
        imports.take(event(str(number), "request", b"x"))
        assert len(imports._waiting) <= 10
    assert imports.counts.alone == 40
    for number in range(50, 60):
        imports.take(event(str(number), "request", b"x" * 4000))
        assert imports._bytes <= 10_000
    late = Imports(kept, patience=0.0)
    late.take(event("a", "request", b"x"))
    late.take(event("b", "request", b"x"))
    assert late.counts.alone == 1


def test_a_lone_event_is_written_when_its_time_is_over_though_no_other_comes() -> None:
    kept = Kept()
    imports = Imports(kept, patience=0.2)
    imports.take(event("a", "request", b"x"))
    imports.take(event("b", "response", b"x"))
    assert imports.counts.waiting == 2
    end = time.monotonic() + 20
    while imports.counts.alone < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert [one["id"] for one in kept.contents] == ["a", "b"]
    # It looks again for those that come later.
    imports.take(event("c", "request", b"x"))
    while imports.counts.alone < 3 and time.monotonic() < end:
        time.sleep(0.05)
    assert (imports.counts.alone, imports.counts.waiting) == (3, 0)
    imports.close()
    # Who keeps them is closing: nothing may wait any more.
    imports.take(event("d", "request", b"x"))
    assert (imports.counts.alone, imports.counts.waiting) == (4, 0)


def test_closing_waits_for_what_is_being_written() -> None:
    writing, go, kept = threading.Event(), threading.Event(), Kept()

    def slow(content: dict[str, Any], asked: Inference | None) -> bool:
        writing.set()
        return go.wait(20) and kept(content, asked)

    imports = Imports(slow, patience=0.0)
    imports.take(event("a", "request", b"x"))
    assert writing.wait(20)
    closing = threading.Thread(target=imports.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go.set()
    closing.join(20)
    assert (imports.counts.alone, len(kept.contents)) == (1, 1)


def test_a_cluster_can_send_its_events(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", bytes(32))
    journal = EvidenceJournal(Log(tmp_path), vault, inputs="all")
    sink = EventSink(Imports(journal.bring), body=10_000)

    def post(body: bytes, **headers: str) -> int:
        told = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urlopen(Asking(url, body, told), timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code

    with served(sink) as port:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{port}/"
        assert post(v2_body(X)) == 202
        assert post(v2_answer(scores(X)), ce_type=RESPONSE) == 202
        assert post(b"{}", ce_type="something.else") == 400
        assert post(b"x" * 20_000) == 413
        with pytest.raises(HTTPError, match="405") as refused:
            urlopen(url, timeout=10)
        refused.value.close()
        assert post(v2_body(X), ce_id="alone") == 202
        assert sink.refused == 3
        assert (sink.counts.pairs, sink.counts.waiting) == (1, 1)
        sink.close()
        assert post(v2_body(X), ce_id="late") == 503
    assert (sink.counts.alone, sink.counts.waiting) == (1, 0)
    journal.close()
    record, alone = [one for one in records(tmp_path) if one.kind == "imported"]
    assert (alone.content["id"], "response" in alone.content) == ("alone", False)
    assert record.content["model"] == "digits"
    assert "decision" not in record.content
    vault = Vault(tmp_path / "vault", bytes(32))
    np.testing.assert_array_equal(unpack(vault.get(record.content["input"]))[0].values, X)
    assert verify(tmp_path, vault=vault).faults == ()
    vault.close()


def test_a_busy_sink_says_so_and_a_slow_body_is_not_waited_for() -> None:
    sink = EventSink(Imports(Kept()), most=1, patience=0.05)
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def never() -> Any:
        await asyncio.sleep(30)

    async def main() -> None:
        scope = {"type": "http", "method": "POST", "headers": []}
        await asyncio.gather(sink(scope, never, send), sink(scope, never, send))

    asyncio.run(main())
    assert sorted(statuses) == [408, 503]


def test_a_file_of_events_is_imported(tmp_path: Path) -> None:
    def line(identity: str, kind: str, body: bytes) -> str:
        return json.dumps({
            "specversion": "1.0", "id": identity, "source": "/logger", "type": kind,
            "inferenceservicename": "digits", "data": json.loads(body),
        })  # fmt: skip

    file = tmp_path / "events.jsonl"
    asked, answered = v2_body(X), v2_answer(scores(X))
    lines = [
        line("1", REQUEST, asked),
        line("1", RESPONSE, answered),
        "",
        line("2", REQUEST, asked),
    ]
    file.write_text("\n".join(lines) + "\n")
    folder = tmp_path / "log"
    code, told = cli("import", str(folder), str(file))
    assert (code, told.strip()) == (0, "imported: 1 pairs, 1 without their half")
    kinds = [record.kind for record in records(folder)]
    assert kinds == ["boot", "imported", "imported", "close"]
    file.write_text("nonsense\n" + lines[3] + "\n{}\n")
    code, told = cli("import", str(folder), str(file))
    assert code == 2
    assert "2 of its lines are no such events, the first is line 1" in told
    assert [record.kind for record in records(folder)].count("imported") == 3
    assert "cannot be read" in cli("import", str(folder), str(tmp_path / "none"))[1]
