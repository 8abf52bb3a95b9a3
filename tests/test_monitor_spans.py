"""Decisions of sampled traces as spans, from evidence to a collector."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
from monitoring import Written, decision
from test_monitor import watching
from test_monitor_tell import Clock, hook

from withstand.evidence.log import read
from withstand.monitor import Monitor
from withstand.monitor.tell import Spans, _spans

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def traced(n: int, flags: str = "01", **more: Any) -> dict[str, Any]:
    trace = f"00-{TRACE}-{PARENT}-{flags}"
    return decision(n, traceparent=trace, ms=[250.0, 200.0], status=200, **more)


def form(needed: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": needed.split(),
        "additionalProperties": False,
    }  # fmt: skip


def some(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


# OTLP 1.x in JSON: ids in hex, 64-bit numbers as text, enumerations as numbers.
NANOSECONDS = {"type": "string", "pattern": r"^[0-9]{19}$"}
WHOLE = {"type": "string", "pattern": "^-?[0-9]+$"}
ATTRIBUTES = some(form("key value", key={"type": "string"}, value={
    "oneOf": [form("stringValue", stringValue={"type": "string"}),
              form("intValue", intValue=WHOLE)],
}))  # fmt: skip
SPAN = form(
    "traceId spanId name kind startTimeUnixNano endTimeUnixNano",
    traceId={"type": "string", "pattern": "^[0-9a-f]{32}$"},
    spanId={"type": "string", "pattern": "^[0-9a-f]{16}$"},
    parentSpanId={"type": "string", "pattern": "^[0-9a-f]{16}$"},
    name={"type": "string"}, kind={"enum": [1, 2, 3, 4, 5]}, startTimeUnixNano=NANOSECONDS,
    endTimeUnixNano=NANOSECONDS, attributes=ATTRIBUTES,
    status=form("code", code={"enum": [0, 1, 2]}),
)  # fmt: skip
OTLP = form("resourceSpans", resourceSpans=some(form(
    "resource scopeSpans", resource=form("attributes", attributes=ATTRIBUTES),
    scopeSpans=some(form("scope spans", spans=some(SPAN), scope=form(
        "name", name={"type": "string"}, version={"type": "string"}))))))  # fmt: skip


def spans(taken: Any) -> list[dict[str, Any]]:
    found = []
    for body in taken.bodies():
        jsonschema.validate(body, OTLP)
        found += body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return found


def told(span: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def looking(folder: Path, clock: Clock, url: str) -> Monitor:
    return watching(folder, clock, traces=url, slos={})


def test_a_sampled_decision_is_a_span_below_the_callers(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(
        traced(1, flagged=("queries",), arm="canary", done=["tag"]), traced(2, flags="00"),
        decision(3), traced(4, flags="03"), decision(5, traceparent="<odd>"),
    )  # fmt: skip
    clock.now = log.wall
    with hook() as taken:
        one = looking(tmp_path, clock, taken.url)
        one.step()
        assert taken.taken == []
        assert one.spans is not None
        assert one.spans.deliver() == 2
        assert one.spans.deliver() == 0
    assert [path for path, _, _ in taken.taken] == ["/v1/traces"]
    first, second = spans(taken)
    assert (first["traceId"], first["parentSpanId"]) == (TRACE, PARENT)
    hashes = [place.record.hash[:16] for place in read(tmp_path / "evidence")]  # type: ignore[union-attr]
    assert [first["spanId"], second["spanId"]] == [hashes[0], hashes[3]]
    length = int(first["endTimeUnixNano"]) - int(first["startTimeUnixNano"])
    assert length == 250_000_000
    assert told(first) == {
        "withstand.request.id": "r-1", "withstand.model": "m", "withstand.decision": "flag",
        "withstand.arm": "canary", "withstand.actions": "tag", "withstand.flagged_by": "queries",
        "http.response.status_code": "200",
    }  # fmt: skip
    # Neither who asked nor what is told.
    assert not {"k", "acme", "f-1"} & set(told(first).values())


def test_what_a_collector_does_not_take_waits_and_is_bounded(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(_spans, "_MOST", 3)
    monkeypatch.setattr(_spans, "_AT_ONCE", 2)
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(traced(n) for n in range(5)))
    clock.now = log.wall
    with hook(503, 200, 200) as taken:
        one = looking(tmp_path, clock, taken.url)
        one.step()
        assert one.own()["spans_lost"][1] == {"": 2.0}
        assert one.spans is not None
        assert one.spans.deliver() == 0
        assert one.spans.deliver() == 3
    assert [told(span)["withstand.request.id"] for span in spans(taken)] == [
        "r-2", "r-3", "r-2", "r-3", "r-4",
    ]  # fmt: skip


def test_a_failure_of_the_model_is_an_error_and_a_thread_sends(tmp_path: Path) -> None:
    log = Written(tmp_path / "evidence")
    log.add({**traced(1), "status": 502}, {**traced(2), "status": 403})
    stop = threading.Event()
    with hook() as taken:
        one = Spans(taken.url)
        for place in read(tmp_path / "evidence"):
            one.see(place.record)  # type: ignore[union-attr]
        thread = one.run(stop, every=0.01)
        until = time.monotonic() + 10
        while not taken.taken and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        thread.join()
    assert [span["status"]["code"] for span in spans(taken)] == [2, 1]
    assert json.loads(taken.taken[0][2])["resourceSpans"][0]["resource"]["attributes"]


def test_what_redaction_has_left_is_a_span_all_the_same(tmp_path: Path) -> None:
    log, left = Written(tmp_path / "evidence"), "c0ffee" * 10
    log.add(traced(1) | {"ms": left, "signals": left, "status": left}, traced(2) | {"ms": []})
    with hook() as taken:
        one = Spans(taken.url)
        for place in read(tmp_path / "evidence"):
            one.see(place.record)  # type: ignore[union-attr]
        assert one.deliver() == 2
    first, second = spans(taken)
    for span in (first, second):
        assert span["startTimeUnixNano"] == span["endTimeUnixNano"]
    assert "http.response.status_code" not in told(first)
    assert "withstand.flagged_by" not in told(first)
    # A status that is not known is neither good nor bad.
    assert [first["status"]["code"], second["status"]["code"]] == [0, 1]
