"""What becomes of requests: who is let in, what goes on, what is done about suspicion."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any
from urllib.request import Request as Asking
from urllib.request import urlopen

import numpy as np
import pytest
from guarding import Model, guarded, scores, served, v2_body

from withstand.guard import (
    Access,
    Answer,
    App,
    Call,
    Guard,
    Key,
    Keys,
    Ladder,
    Line,
    Mitigation,
    Quota,
    Rate,
    Request,
    Rule,
    Sensor,
    Signal,
    Standing,
)
from withstand.guard._lines import Share
from withstand.guard._record import record_of
from withstand.guard._routes import Route
from withstand.guard.answers import Answered
from withstand.guard.wire import Inference

X = np.linspace(0, 1, 8).reshape(2, 4)


class Suspects(Sensor):
    """Flags inputs whose first number is above a half."""

    def __init__(self, action: str = "tag", **more: Any) -> None:
        self.name, self.action = "suspects", action
        self.__dict__.update(more)
        self.learned: list[Answered] = []

    def look(self, call: Call) -> Signal:
        score = float(call.asked.inputs[0].values.ravel()[0])
        return Signal(self.name, score, 0.5, score > 0.5)

    def learn(self, call: Call, answered: Answered) -> None:
        self.learned.append(answered)


class Notes:
    """A journal in memory."""

    def __init__(self, *, required: bool = False, takes: bool = True) -> None:
        self.required, self.takes, self.failing = required, takes, False
        self.kept: list[dict[str, Any]] = []

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Inference | None) -> bool:
        self.kept.append(json.loads(json.dumps(content)))
        return self.takes


def ask(guard: Guard, body: bytes, path: str = "/v2/models/m/infer", **headers: str) -> Answer:
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return asyncio.run(guard.answer(Request("POST", path, told, body)))


def data(answer: Answer) -> np.ndarray[Any, Any]:
    (output,) = json.loads(answer.body)["outputs"]
    return np.reshape(output["data"], output["shape"])


@pytest.mark.parametrize("raw", [False, True])
def test_what_was_inspected_goes_on_and_the_answer_comes_back(raw: bool) -> None:
    model = Model()
    answer = ask(guarded(model, raw=raw), v2_body(X, id="seven"))
    assert answer.status == 200
    assert json.loads(answer.body)["id"] == "seven"
    np.testing.assert_allclose(data(answer), scores(X), rtol=1e-6)
    headers = dict(model.seen[0][2])
    assert (b"inference-header-content-length" in headers) == raw


def test_others_are_answered_while_a_dear_rule_works_in_a_thread() -> None:
    answered = threading.Event()

    def dear(asked: Inference) -> Inference:
        assert answered.wait(30)
        return asked

    rules = (Rule(name="image", apply=dear, beside=True),)
    model = Model()
    lines = {
        "dear": Line(mode="enforce", upstream=model, rules=rules),
        "m": Line(mode="enforce", upstream=model),
    }
    guard = Guard(lines)

    async def both() -> list[int]:
        path = "/v2/models/dear/infer"
        first = asyncio.create_task(guard.answer(Request("POST", path, [], v2_body(X))))
        await asyncio.sleep(0)
        second = await guard.answer(Request("POST", "/v2/models/m/infer", [], v2_body(X)))
        assert not first.done()
        answered.set()
        return [second.status, (await first).status]

    assert asyncio.run(both()) == [200, 200]


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/invocations"])
def test_rows_go_through(path: str) -> None:
    key = "instances" if path.startswith("/v1") else "inputs"
    guard = Guard({"": Line(mode="enforce", upstream=Model())})
    answer = ask(guard, json.dumps({key: X.tolist()}).encode(), path)
    np.testing.assert_allclose(json.loads(answer.body)["predictions"], scores(X), rtol=1e-6)


def test_invocations_are_the_only_models() -> None:
    model = Model()
    body = json.dumps({"inputs": X.tolist()}).encode()
    guard = guarded(model)
    assert ask(guard, body, "/invocations").status == 200
    assert guard.metrics.counts["requests"] == {("m", "default", "200"): 1}
    # What is ordered for the model is for this way to it, too.
    guard.mitigations.put(Mitigation(id="a", action="block", until=4e9, model="m"))
    assert ask(guard, body, "/invocations").status == 403
    line = Line(mode="enforce", upstream=model)
    answer = ask(Guard({"m": line, "n": line}), body, "/invocations")
    assert answer.status == 404
    assert json.loads(answer.body)["error"] == (
        "/invocations names no model; ask /v2/models/NAME/infer"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/other/infer", "/v2/models/m/infer?x=1", "/v2/models/../infer", "/metrics",
        "/v2/models/m%2e/infer", "/v2/repository/index", "//v2/models/m/infer",
        "/v2/models/m/infer/", "/v2/models/m/unload",
    ],
)  # fmt: skip
def test_what_is_not_named_is_not_there(path: str) -> None:
    model = Model()
    assert ask(guarded(model), v2_body(X), path).status == 404
    assert not model.seen


def test_without_a_key_nobody_gets_in(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", bytes(32))
    secret = keys.make("acme")
    guard = Guard({"m": Line(mode="enforce", upstream=Model())}, access=Access(keys))
    assert ask(guard, v2_body(X)).status == 401
    assert ask(guard, v2_body(X), x_api_key=secret[:-1] + "A").status in (401, 200)
    assert ask(guard, v2_body(X), x_api_key=secret).status == 200
    assert ask(guard, v2_body(X), authorization=f"Bearer {secret}").status == 200
    both = ask(guard, v2_body(X), authorization=f"Bearer {secret}", x_api_key=secret)
    assert both.status == 401


def test_a_quota_is_told_and_kept() -> None:
    access = Access(None, Quota(Rate(requests=2, seconds=60)))
    guard = Guard({"m": Line(mode="enforce", upstream=Model())}, access=access)
    found = [ask(guard, v2_body(X)) for _ in range(3)]
    assert [one.status for one in found] == [200, 200, 429]
    assert int(dict(found[2].headers)[b"retry-after"]) > 0
    assert b"ratelimit" in dict(found[0].headers)


def flagged(guard: Guard) -> Answer:
    return ask(guard, v2_body(X + 0.6))


def benign(guard: Guard) -> Answer:
    return ask(guard, v2_body(X * 0))


def test_each_action_is_taken_and_those_below_it() -> None:
    ladder = Ladder(climb=10**6)
    for action, status in {"tag": 200, "coarsen": 200, "block": 403}.items():
        model = Model()
        guard = guarded(model, sensors=(Suspects(action),), standing=Standing(ladder), delay=0.0)
        assert benign(guard).status == 200
        answer = flagged(guard)
        assert answer.status == status
        if status == 200:
            assert (b"x-withstand-flagged", b"1") in model.seen[1][2]
            wanted, found = scores(X + 0.6), data(answer)
            np.testing.assert_allclose(found, wanted, atol=0.15 if action == "coarsen" else 1e-6)
            assert (found == found.round(1)).all() == (action == "coarsen")
            assert (found.argmax(1) == wanted.argmax(1)).all()
        else:
            assert len(model.seen) == 1
            assert b"suspects" not in answer.body


class Afterwards(Suspects):
    """The same, once the model has answered."""

    def look(self, call: Call) -> None:  # type: ignore[override]
        return None

    def learn(self, call: Call, answered: Answered) -> Signal:  # type: ignore[override]
        return Suspects.look(self, call)


def test_the_record_tells_what_was_done_and_no_more() -> None:
    """Without a quota for the throttled, without a second model, and with an answer there already:
    a step that cannot be taken is not told as taken."""
    actions = ("tag", "coarsen", "delay", "throttle", "reroute", "quarantine", "block")
    told: dict[tuple[str, bool], tuple[int, list[str]]] = {}
    for action in actions:
        for late in (False, True):
            notes = Notes()
            sensor = (Afterwards if late else Suspects)(action)
            line = Line(
                mode="enforce", upstream=Model(), sensors=(sensor,), delay=1e-3,
                standing=Standing(Ladder(actions=actions, climb=10**6)),
            )  # fmt: skip
            guard = Guard({"m": line}, journal=notes)
            status = flagged(guard).status
            told[action, late] = status, notes.kept[0]["done"]
            counted = guard.metrics.registry.get_sample_value(
                "withstand_decisions_total",
                {
                    "model": "m", "decision": notes.kept[0]["decision"],
                    "action": notes.kept[0]["done"][-1] if notes.kept[0]["done"] else "none",
                },
            )  # fmt: skip
            assert counted == 1
    early = [told[action, False] for action in actions]
    assert early == [
        (200, ["tag"]), (200, ["tag", "coarsen"]), *[(200, ["tag", "coarsen", "delay"])] * 3,
        (403, ["quarantine"]), (403, ["quarantine", "block"]),
    ]  # fmt: skip
    late_ = [told[action, True] for action in actions]
    assert late_ == [
        (200, []), *[(200, ["coarsen"])] * 4, (403, ["quarantine"]), (403, ["quarantine", "block"]),
    ]  # fmt: skip


def test_no_more_than_the_share_goes_to_the_other_model() -> None:
    notes, other = Notes(), Model()
    line = Line(
        mode="enforce", upstream=Model(), sensors=(Suspects("reroute"),), reroute=other,
        standing=Standing(Ladder(actions=("tag", "reroute"), climb=10**6)), share=Share(0.05),
    )  # fmt: skip
    guard = Guard({"m": line}, journal=notes)
    for number in range(1, 121):
        assert flagged(guard).status == 200
        assert len(other.seen) == number // 20
    assert sum("reroute" in one["done"] for one in notes.kept) == len(other.seen) == 6


def test_only_a_mode_that_enforces_acts() -> None:
    for mode, would in {"shadow": ["tag", "coarsen", "delay", "throttle", "block"]}.items():
        notes = Notes()
        line = Line(mode=mode, upstream=Model(), sensors=(Suspects("block"),))  # type: ignore[arg-type]
        guard = Guard({"m": line}, journal=notes)
        assert flagged(guard).status == 200
        assert (notes.kept[0]["decision"], notes.kept[0]["done"]) == ("flag", [])
        assert notes.kept[0]["would"] == would


def test_observing_passes_on_every_byte_and_still_writes_down_what_it_saw() -> None:
    model, notes = Model(), Notes()
    line = Line(mode="observe", upstream=model, sensors=(Suspects("block"),))
    guard = Guard({"m": line}, journal=notes)
    body = v2_body(X + 0.6).replace(b"{", b"{ ", 1)

    async def main() -> Answer:
        answer = await guard.answer(Request("POST", "/v2/models/m/infer", [], body))
        await asyncio.gather(*guard._beside)
        return answer

    assert asyncio.run(main()).status == 200
    assert model.seen[0][3] == body
    assert notes.kept[0]["decision"] == "flag"


def test_clients_climb_and_come_down_again() -> None:
    now = [0.0]
    standing = Standing(Ladder(actions=("tag", "block"), climb=3, window=100), clock=lambda: now[0])
    guard = guarded(Model(), sensors=(Suspects("tag"),), standing=standing)
    found = [flagged(guard).status for _ in range(7)]
    assert found[:5] == [200] * 5
    assert found[6] == 403
    assert benign(guard).status == 403
    now[0] += 100
    assert benign(guard).status == 200


def test_a_sensor_that_fails_follows_its_policy() -> None:
    class Broken(Suspects):
        def look(self, call: Call) -> Signal:
            raise ValueError("no")

    for policy, status in {"open": 200, "closed": 503}.items():
        guard = guarded(Model(), sensors=(Broken(on_failure=policy),))
        assert benign(guard).status == status
        counted = guard.metrics.registry.get_sample_value(
            "withstand_sensor_failures_total", {"sensor": "suspects", "why": "error"}
        )
        assert counted == 1


def test_required_evidence_is_required() -> None:
    for required, status in {False: 200, True: 503}.items():
        line = Line(mode="enforce", upstream=Model())
        guard = Guard({"m": line}, journal=Notes(required=required, takes=False))
        assert benign(guard).status == status
        lost = guard.metrics.registry.get_sample_value("withstand_evidence_lost_total")
        assert lost == 1


def test_a_defect_is_no_stack_trace(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(Model):
        async def ask(self, *words: Any) -> Answer:
            raise KeyError("secret")

    answer = benign(guarded(Defective()))
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert "Traceback" in caplog.text


def test_an_answer_that_is_none_is_not_passed_on() -> None:
    class Lying(Model):
        async def ask(self, *words: Any) -> Answer:
            return Answer(200, [], b'{"outputs":[{"name":"p","datatype":"FP32","shape":[9]}]}')

    assert benign(guarded(Lying())).status == 502


def test_it_serves_on_a_socket() -> None:
    app = App(guarded(Model()), body=1000)
    with served(app) as port:
        url = f"http://127.0.0.1:{port}/v2/models/m/infer"
        with urlopen(Asking(url, v2_body(X)), timeout=5) as answer:
            found = json.load(answer)["outputs"][0]["data"]
    np.testing.assert_allclose(np.reshape(found, (2, 3)), scores(X), rtol=1e-6)


def test_a_record_tells_milliseconds_to_the_microsecond() -> None:
    told = record_of(
        "1", None, route=Route(kind="infer", form="v2", path="/"), key=Key(id="k", tenant="t"),
        line=Line(mode="enforce", upstream=Model()), answer=None, failure=None, steps=(), done=(),
        times=(1.2345678, 0.0004321), more={},
    )  # fmt: skip
    assert told["ms"] == [1234.568, 0.432]
