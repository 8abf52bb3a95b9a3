"""A request's trace and its own id go on to the model, and stand in evidence."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from guarding import Model, v2_body

from withstand.guard import Guard, Line, Request
from withstand.guard._journal import NoJournal

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Notes(NoJournal):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Any) -> bool:
        self.kept.append(content)
        return True


@pytest.mark.parametrize("mode", ["observe", "enforce"])
@pytest.mark.parametrize(
    ("given", "known"),
    [
        ([TRACE], True),
        ([], False),
        ([TRACE, TRACE], False),
        ([TRACE.upper()], False),
        ([TRACE + b"\n"], False),
        ([TRACE + b"-more"], False),
        ([b"ff" + TRACE[2:]], False),
        ([b"00-" + b"0" * 32 + TRACE[35:]], False),
        ([TRACE[:36] + b"0" * 16 + b"-01"], False),
        ([b"<script>"], False),
    ],
)
def test_a_sound_trace_is_recorded_and_an_odd_one_is_not(
    given: list[bytes], known: bool, mode: Literal["observe", "enforce"]
) -> None:
    notes, model = Notes(), Model()
    guard = Guard({"m": Line(upstream=model, mode=mode)}, journal=notes)
    ask(guard, [(b"traceparent", one) for one in given])
    (told,) = notes.kept
    assert told.get("traceparent") == (TRACE.decode() if known else None)
    passed = [value for name, value in model.seen[0][2] if name == b"traceparent"]
    assert passed == given


@pytest.mark.parametrize("mode", ["observe", "enforce"])
@pytest.mark.parametrize(
    ("header", "body", "known"),
    [
        ([b"7f-1/a"], "", "7f-1/a"),
        ([], "seven", "seven"),
        ([b"7f-1/a"], "seven", "7f-1/a"),
        ([b"two words"], "", None),
        ([b"x" * 129], "", None),
        ([b"a", b"b"], "", None),
        ([b"\xff"], "", None),
        ([b""], "", None),
        ([], "", None),
    ],
)
def test_a_complaint_can_be_matched_with_its_record(
    header: list[bytes], body: str, known: str | None, mode: Literal["observe", "enforce"]
) -> None:
    notes = Notes()
    guard = Guard({"m": Line(upstream=Model(), mode=mode)}, journal=notes)
    ask(guard, [(b"x-request-id", one) for one in header], **({"id": body} if body else {}))
    assert notes.kept[0].get("request_id") == known


def ask(guard: Guard, headers: list[tuple[bytes, bytes]], **told: Any) -> None:
    async def asked() -> None:
        body = v2_body([[0.1, 0.2, 0.3, 0.4]], **told)
        headers_ = [(b"content-type", b"application/json"), *headers]
        answer = await guard.answer(Request("POST", "/v2/models/m/infer", headers_, body))
        assert answer.status == 200
        await guard.settled()

    asyncio.run(asked())
