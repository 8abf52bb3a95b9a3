"""Runbooks are taken step by step, each step once, whoever is killed meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from responding import FakeGuard, attacked, configured, fake_guard, over, runbook

from withstand import WithstandError
from withstand.evidence.log import Log
from withstand.respond import (
    Action,
    Arguments,
    Case,
    Desk,
    Outcome,
    Responder,
    Step,
    actions,
    approve,
    dry_run,
    go_on,
    open_incident,
    resolve,
    run_runbook,
    runbooks,
)

KEYS = {"keys": "{campaign.keys}", "model": "{campaign.model}"}
STEPS = (
    {"name": "less", "action": "coarsen", "with": KEYS},
    {"name": "slow", "action": "throttle", "with": {**KEYS, "seconds": 60}, "contains": True},
    {"name": "tell", "action": "notify", "with": {"to": "chat", "text": "{incident.title}"}},
    {"name": "back", "action": "roll_back", "with": {"model": "m"}},
    {"name": "keep", "action": "snapshot_evidence"},
)


@pytest.fixture
def guard() -> Iterator[FakeGuard]:
    with fake_guard() as found:
        yield found


def opened(folder: Path, guard: FakeGuard, *steps: dict[str, Any], **more: Any) -> Desk:
    """An incident 1, and a runbook r for it."""
    runbook(folder, "r", *steps)
    path = configured(folder, guard.port, **more)
    with Log(folder / "evidence") as log:
        log.append({"decision": "flag", "model": "m", "key": "k1"}, kind="decision")
    attacked(folder)
    (found,) = Responder(path).step()
    assert found.id == 1
    return Desk(path)


def states(desk: Desk) -> list[str]:
    return [step.state for step in desk.incidents.steps(1)]


def test_a_runbook_is_taken_in_order_and_all_of_it_is_written_down(
    tmp_path: Path, guard: FakeGuard
) -> None:
    desk = opened(tmp_path, guard, *STEPS)
    before = time.time()
    steps = run_runbook(desk, 1, "r", who="ann")
    assert [step.state for step in steps] == ["done"] * 5, steps
    assert sorted(guard.held) == [
        f"incident-1-step-{n}-{key}" for n in (1, 2) for key in ("k1", "k2")
    ]
    assert guard.held["incident-1-step-2-k1"]["who"] == "ann"
    assert int(guard.held["incident-1-step-2-k1"]["seconds"]) in (59, 60)
    assert guard.told == ["incident-1-step-3"]
    assert guard.acts == ["/canary/rollback"]
    assert (desk.folder(1) / "evidence.jsonl").read_text().count("\n") >= 2
    found = desk.incidents.get(1)
    assert found.state == "mitigated"
    assert found.mitigated is not None
    assert found.mitigated >= before
    (recovery,) = desk.observations.of("M9")
    page = desk.alerts.all()[0].starts
    assert recovery.value == pytest.approx(found.mitigated - page, abs=0.01)
    acts = [act.action for act in desk.audit.last(about="incident:1") if act.who == "ann"]
    assert acts[::-1][:3] == ["run r", "coarsen", "coarsen done"]
    assert desk.audit.verify() > 10
    assert run_runbook(desk, 1, "r", who="ann") == steps
    assert len(guard.orders) == 4
    again = run_runbook(desk, 1, "r", who="ann", again=True)
    assert [step.number for step in again] == [6, 7, 8, 9, 10]
    assert len(guard.orders) == 8


def test_a_dry_run_says_it_all_and_touches_nothing(tmp_path: Path, guard: FakeGuard) -> None:
    desk = opened(tmp_path, guard, *STEPS, {"name": "x", "action": "block", "with": {"keys": []}})
    stamp = desk.audit.verify(), desk.incidents.timeline(1)
    said = dry_run(desk, 1, "r")
    assert any("throttle client k1 of model m for 60 seconds, as incident-1-step-2-k1" in line
               for line in said)  # fmt: skip
    assert "tell chat: somebody searches m" in said[4]
    assert "would fail: block is on no client" in said[-1]
    assert (desk.audit.verify(), desk.incidents.timeline(1)) == stamp
    assert (guard.orders, guard.told, guard.acts, desk.incidents.steps(1)) == ([], [], [], [])


def dies(path: Path, moment: str, number: int) -> None:
    def tell(now: str, step: Step) -> None:
        if (now, step.number) == (moment, number):
            os.kill(os.getpid(), signal.SIGKILL)

    run_runbook(Desk(path), 1, "r", who="ann", tell=tell)


@pytest.mark.parametrize("moment", ["begun", "acted", "noted"])
def test_a_responder_killed_in_every_step_goes_on_and_nothing_is_done_twice(
    tmp_path: Path, guard: FakeGuard, moment: str
) -> None:
    context = multiprocessing.get_context("fork")
    path = opened(tmp_path, guard, *STEPS).path
    for number in range(1, len(STEPS) + 1):
        child = context.Process(target=dies, args=(path, moment, number))
        child.start()
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
        found = states(Desk(path))
        left = [] if moment == "noted" else ["running"]
        assert found[: number - 1 + (not left)] == ["done"] * (number - 1 + (not left))
        assert [state for state in found if state != "done"] == (
            left + ["pending"] * (len(STEPS) - number)
        )
        if moment == "acted" and number < 3:
            # What somebody has lifted meanwhile must not come back.
            guard.held = {}
            _evidence_of(tmp_path, guard)
    desk = Desk(path)
    assert go_on(desk, 1)
    assert states(desk) == ["done"] * 5, [step.result for step in desk.incidents.steps(1)]
    assert len(guard.orders) == len(set(guard.orders)) == 4
    assert set(guard.told) == {"incident-1-step-3"}
    assert guard.acts == ["/canary/rollback"]
    assert len(desk.observations.of("M9")) == 1


def _evidence_of(folder: Path, guard: FakeGuard) -> None:
    """What a guard writes down of its orders."""
    with Log(folder / "evidence") as log:
        for identity in guard.orders:
            log.append({"id": identity, "action": "x"}, kind="mitigation")


def test_a_step_waits_for_approval_and_a_declined_one_is_never_taken(
    tmp_path: Path, guard: FakeGuard
) -> None:
    steps = [{**step, "approval": True} for step in STEPS[:2]]
    desk = opened(tmp_path, guard, *steps, STEPS[2])
    run_runbook(desk, 1, "r", who="ann")
    assert states(desk) == ["approval", "pending", "pending"]
    for _ in range(2):
        go_on(desk, 1)
    waits = [entry for entry in desk.incidents.timeline(1) if entry.kind == "approval"]
    assert (guard.orders, len(waits)) == ([], 1)
    assert approve(desk, 1, 1, who="bob").state == "done"
    assert guard.held["incident-1-step-1-k1"]["who"] == "bob"
    assert approve(desk, 1, 2, who="bob", agreed=False).result == "declined by bob"
    assert states(desk) == ["done", "skipped", "done"]
    assert len(guard.orders) == 2
    for number in (1, 2, 9):
        with pytest.raises(WithstandError, match=f"step {number} of incident 1 is .* no approval"):
            approve(desk, 1, number, who="bob")


def test_what_somebody_agreed_to_is_done_on_their_word_whoever_comes_to_it(
    tmp_path: Path, guard: FakeGuard
) -> None:
    desk = opened(tmp_path, guard, {**STEPS[0], "approval": True})
    run_runbook(desk, 1, "r", who="ann")
    (step,) = desk.incidents.steps(1)
    desk.incidents.put_step(1, replace(step, approved="bob", state="pending"))
    go_on(desk, 1)
    assert {one["who"] for one in guard.held.values()} == {"bob"}
    assert desk.audit.last(1)[0].who == "bob"


def test_what_is_over_is_not_held_up_later(tmp_path: Path, guard: FakeGuard) -> None:
    desk = opened(tmp_path, guard, {**STEPS[1], "approval": True}, STEPS[2], STEPS[3])
    run_runbook(desk, 1, "r", who="ann")
    over(tmp_path, desk.alerts.all()[0])
    found = approve(desk, 1, 1, who="bob")
    assert (found.state, found.result) == ("skipped", "its reason is over")
    assert states(desk) == ["skipped", "done", "skipped"]
    assert (guard.orders, guard.acts) == ([], [])


def test_an_order_lasts_from_when_its_step_began(tmp_path: Path, guard: FakeGuard) -> None:
    desk = opened(tmp_path, guard, STEPS[1], STEPS[1])
    for number, age in ((1, 45.0), (2, 61.0)):
        step = Step(
            number=number, run=number, runbook="r", name="slow", action="throttle",
            arguments={"keys": ["k"], "seconds": 60}, state="running", timeout=1000,
            began=time.time() - age,
        )  # fmt: skip
        desk.incidents.put_step(1, step)
    go_on(desk, 1)
    assert [guard.held[one]["seconds"] for one in guard.orders] in (["14"], ["15"])
    assert states(desk) == ["done", "skipped"]


def test_a_failed_step_stops_a_runbook_unless_it_may_go_on(
    tmp_path: Path, guard: FakeGuard
) -> None:
    bad = {"name": "x", "action": "notify", "with": {"to": "nobody", "text": "t"}}
    desk = opened(
        tmp_path, guard, {**bad, "on_failure": "continue"}, STEPS[0], bad, STEPS[1]
    )  # fmt: skip
    run_runbook(desk, 1, "r", who="ann")
    assert states(desk) == ["failed", "done", "failed", "skipped"]
    results = [step.result for step in desk.incidents.steps(1)]
    assert "'nobody' is no name under respond.notify; it has chat" in results[0]
    assert results[3] == "step 3 has failed"
    assert desk.incidents.get(1).state == "open"


def test_a_guard_that_does_not_answer_is_asked_again_and_then_given_up(
    tmp_path: Path, guard: FakeGuard
) -> None:
    desk = opened(tmp_path, guard, {**STEPS[1], "timeout": 100}, {**STEPS[0], "timeout": 0.1})
    port = guard.port
    configured(tmp_path, 9)
    silent = Desk(desk.path)
    run_runbook(silent, 1, "r", who="ann")
    assert states(desk) == ["running", "pending"]
    assert "no guard answers" in desk.incidents.steps(1)[0].result
    configured(tmp_path, port)
    go_on(Desk(desk.path), 1)
    assert states(desk) == ["done", "done"]
    guard.status = 409
    found = run_runbook(Desk(desk.path), 1, "r", who="ann", again=True)
    assert [step.state for step in found] == ["failed", "skipped"]
    assert found[0].result == "it cannot"


def test_a_slow_one_is_given_up_after_its_time(tmp_path: Path, guard: FakeGuard) -> None:
    desk = opened(tmp_path, guard, {**STEPS[2], "timeout": 0.1})
    guard.status = 503
    run_runbook(desk, 1, "r", who="ann")
    assert states(desk) == ["running"]
    time.sleep(0.15)
    go_on(desk, 1)
    assert states(desk) == ["failed"]
    assert "not done within 0.1 seconds" in desk.incidents.steps(1)[0].result


def test_nothing_is_ordered_on_everybody_by_an_empty_list(tmp_path: Path, guard: FakeGuard) -> None:
    empty = [{"name": "x", "action": "block", "with": {"keys": keys}, "on_failure": "continue"}
             for keys in ([], [""])]  # fmt: skip
    everybody = {"name": "x", "action": "block", "with": {"everybody": True, "seconds": 9}}
    desk = opened(tmp_path, guard, *empty, everybody, {"name": "y", "action": "lift"})
    run_runbook(desk, 1, "r", who="ann")
    assert states(desk) == ["failed", "failed", "done", "done"]
    assert (guard.orders, guard.held) == (["incident-1-step-3"], {})


def test_two_at_a_time_do_not_work_on_one_incident(
    tmp_path: Path, guard: FakeGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = opened(tmp_path, guard, STEPS[0])
    monkeypatch.setattr("withstand.respond._run._PATIENCE", 0.1)
    with desk.alone(1):
        with pytest.raises(WithstandError, match="somebody else is at work on incident 1"):
            run_runbook(desk, 1, "r", who="ann")
        assert not go_on(desk, 1)
    assert run_runbook(desk, 1, "r", who="ann")[0].state == "done"


def test_a_person_waits_for_the_end_of_a_responders_pass(tmp_path: Path, guard: FakeGuard) -> None:
    desk = opened(tmp_path, guard, STEPS[0])
    held = threading.Event()

    def passes() -> None:
        with desk.alone(1):
            held.set()
            time.sleep(0.2)

    other = threading.Thread(target=passes)
    other.start()
    held.wait(5)
    assert run_runbook(desk, 1, "r", who="ann")[0].state == "done"
    other.join()


def test_a_canary_is_rolled_back_or_held_whatever_its_model_is_called(
    tmp_path: Path, guard: FakeGuard
) -> None:
    steps = [
        {"name": "x", "action": action, "with": {"model": model}}
        for action, model in (
            ("freeze", "m"),
            ("freeze", ""),
            ("roll_back", "m"),
            ("roll_back", ""),
            ("freeze", ""),
            ("roll_back", "n"),
        )
    ]
    desk = opened(tmp_path, guard, *steps)
    run_runbook(desk, 1, "r", who="ann")
    assert states(desk) == ["done", "done", "done", "done", "skipped", "skipped"]
    assert guard.acts == ["/canary/freeze", "/canary/rollback"]
    guard.canary, guard.model = "running", "*"
    run_runbook(desk, 1, "r", who="ann", again=True)
    assert states(desk)[6:] == ["done", "done", "done", "done", "skipped", "done"]


def test_an_action_with_a_mistake_fails_and_the_responder_goes_on(
    tmp_path: Path, guard: FakeGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from withstand.respond.action._notify import Notify

    desk = opened(tmp_path, guard, {**STEPS[2], "on_failure": "continue"}, STEPS[0])
    monkeypatch.setattr(Notify, "act", lambda *_: 1 / 0)
    run_runbook(desk, 1, "r", who="ann")
    assert states(desk) == ["failed", "done"]
    assert desk.incidents.steps(1)[0].result == "ZeroDivisionError: division by zero"


def test_nothing_is_done_about_what_is_resolved(tmp_path: Path, guard: FakeGuard) -> None:
    desk = opened(tmp_path, guard, {**STEPS[0], "approval": True})
    run_runbook(desk, 1, "r", who="ann")
    assert resolve(desk, 1, who="ann", why="a test").state == "resolved"
    with pytest.raises(WithstandError, match="incident 1 is resolved"):
        run_runbook(desk, 1, "r", who="ann")
    assert approve(desk, 1, 1, who="bob").state == "skipped"
    assert guard.orders == []


def test_what_was_waiting_when_it_was_resolved_is_not_done(
    tmp_path: Path, guard: FakeGuard
) -> None:
    tell = {"name": "tell", "action": "notify", "with": {"to": "chat", "text": "x"}}
    desk = opened(tmp_path, guard, {**tell, "approval": True})
    run_runbook(desk, 1, "r", who="ann")
    resolve(desk, 1, who="ann", why="a test")
    assert approve(desk, 1, 1, who="bob").state == "skipped"
    assert guard.told == []


MISTAKES: dict[str, tuple[str, str]] = {
    "no yaml": ("a: [", "YAML error"),
    "no mapping": ("- a", "it is no mapping"),
    "twice": ("name: a\nname: b\nsteps: []", "key 'name' is there twice"),
    "no steps": ("name: a", "key 'steps' is missing"),
    "empty": ("name: a\nsteps: []", "steps is .*at least 1"),
    "misspelt": ("name: a\nstep: []", "unknown key 'step', did you mean 'steps'"),
    "name": ("name: A b\nsteps: []", "name is 'A b'"),
    "in a step": (
        "name: a\nsteps: [{name: x, action: block, aproval: true}]",
        r"step 1: unknown key 'aproval', did you mean 'approval'",
    ),
    "no action": ("name: a\nsteps: [{name: x}]", "step 1: key 'action' is missing"),
    "action": (
        "name: a\nsteps: [{name: x, action: trottle}]",
        r"step 1 \(x\): action 'trottle' is unknown, did you mean 'throttle'",
    ),
    "shell": ("name: a\nsteps: [{name: x, action: command}]", "action 'command' is unknown"),
    "argument": (
        "name: a\nsteps: [{name: x, action: block, with: {key: k}}]",
        r"with\.key is unknown, did you mean 'keys'",
    ),
    "value": (
        "name: a\nsteps: [{name: x, action: block, with: {seconds: -1}}]",
        r"step 1 \(x\): with\.seconds: .*greater than 0",
    ),
    "reference": (
        'name: a\nsteps: [{name: x, action: block, with: {keys: "{campaign.kes}"}}]',
        r"\{campaign.kes\} is unknown, did you mean 'campaign.keys'",
    ),
    "brace": (
        'name: a\nsteps: [{name: x, action: block, with: {keys: "{0.__class__}"}}]',
        "has a brace that is no reference",
    ),
    "when": ("name: a\nwhen: {campain: client}\nsteps: [{name: x, action: lift}]",
             "when: unknown key 'campain', did you mean 'campaign'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_runbook_is_one_line_with_its_fix(tmp_path: Path, name: str) -> None:
    text, words = MISTAKES[name]
    desk = Desk(configured(tmp_path))
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "mine.yaml").write_text(text)
    with pytest.raises(WithstandError, match=words) as caught:
        runbooks(desk)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "runbooks" / "mine.yaml"))


def test_ones_own_runbook_replaces_the_built_in_one(tmp_path: Path) -> None:
    desk = Desk(configured(tmp_path))
    built = runbooks(desk)
    assert list(built) == [
        "attack-by-one-client", "canary-fooled", "distributed-attack", "evidence-broken",
    ]  # fmt: skip
    runbook(tmp_path, "canary-fooled", {"name": "only", "action": "lift"})
    assert [step.name for step in runbooks(desk)["canary-fooled"].steps] == ["only"]
    runbook(tmp_path, "canary-fooled-2", {"name": "only", "action": "lift"})
    path = tmp_path / "runbooks" / "canary-fooled-2.yaml"
    path.write_text(path.read_text().replace("fooled-2", "fooled"))
    with pytest.raises(WithstandError, match=r"name is canary-fooled, as in"):
        runbooks(desk)


def test_what_a_reference_stands_for_is_not_looked_at_again(
    tmp_path: Path, guard: FakeGuard
) -> None:
    desk = opened(
        tmp_path, guard,
        {"name": "x", "action": "notify", "with": {"to": "chat", "text": "{alert.model}"},
         "on_failure": "continue"},
        {"name": "y", "action": "notify", "with": {"to": "chat", "text": "{alert.nothing}"}},
    )  # fmt: skip
    alert = desk.alerts.all()[0]
    desk.alerts.resolve(alert.fingerprint, time.time())
    desk.alerts.fire(
        replace(alert, labels={**alert.labels, "model": "{campaign.keys}"}, campaign="",
                starts=time.time())
    )  # fmt: skip
    (found,) = Responder(desk.path).step()
    steps = run_runbook(desk, found.id, "r", who="ann")
    assert steps[0].arguments["text"] == "{campaign.keys}"
    assert "{alert.nothing} stands for nothing" in steps[1].result


def test_only_sound_addresses_can_be_told(tmp_path: Path, guard: FakeGuard) -> None:
    for address, words in (("ftp://x", "give a URL, such as http"), ("nothing", "give a URL"),
                           ("http://a:99999/x", "give a URL"), ("http://a:b/x", "give a URL"),
                           ("http://a:0/x", "give a URL"), ("http://a b/x", "give a URL"),
                           ("http://a/x\ty", "give a URL"), ("http://[::1/x", "give a URL"),
                           ("http://a:b@c/d", "take the user out of the URL")):  # fmt: skip
        with pytest.raises(WithstandError, match=words):
            Desk(configured(tmp_path, notify={"chat": address}))
    desk = opened(
        tmp_path, guard, {**STEPS[2], "timeout": 0.001},
        notify={"chat": "http://169.254.169.254/latest"},
    )  # fmt: skip
    run_runbook(desk, 1, "r", who="ann")
    time.sleep(0.01)
    go_on(desk, 1)
    assert states(desk) == ["failed"]


class _Asked(Arguments):
    team: str


class _Page(Action[_Asked]):
    name = "page_team"
    told = _Asked

    def plan(self, case: Case, told: _Asked) -> list[str]:
        return [f"page {told.team}"]

    def act(self, case: Case, told: _Asked) -> Outcome:
        return Outcome(state="done", text=f"{case.identity}: {told.team}")


def test_others_add_actions_by_an_entry_point(
    tmp_path: Path, guard: FakeGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"{__name__}_actions"
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(Page=_Page))
    entry = EntryPoint("page_team", f"{module}:Page", "withstand.actions")
    monkeypatch.setattr(
        "withstand.respond.action._registry.entry_points",
        lambda group: [entry] if group == "withstand.actions" else [],
    )
    desk = opened(
        tmp_path, guard, {"name": "x", "action": "page_team", "with": {"team": "{campaign.kind}"}}
    )  # fmt: skip
    assert dry_run(desk, 1, "r") == ["1. x (page_team): page client"]
    (step,) = run_runbook(desk, 1, "r", who="ann")
    assert step.result == "incident-1-step-1: client"
    runbook(tmp_path, "s", {"name": "x", "action": "page_team"})
    with pytest.raises(WithstandError, match=r"with\.team: .*required; page_team takes team"):
        runbooks(desk)


def test_a_gate_that_was_not_run_passes_nothing(tmp_path: Path) -> None:
    desk = Desk(configured(tmp_path))
    incident = open_incident(desk, "x", who="ann")
    step = Step(number=1, runbook="r", name="n", action="retrain")
    case = Case(desk=desk, incident=incident, campaign=None, step=step, who="ann")
    assert desk.config.respond.retrain.gate
    retrain = actions()["retrain"]
    assert retrain.ended(case, (0,), "").text.endswith("no gate was asked")
    assert retrain.ended(case, (0, 0), "").text.endswith("the gate passes it")


def test_a_canary_that_was_not_rolled_back_is_not_named(tmp_path: Path) -> None:
    class Two:
        def __init__(self) -> None:
            self.models = {"a": {"state": "running"}, "b": {"state": "promoted"}}

        def canary(self) -> dict[str, Any]:
            return {"models": self.models}

        def canary_act(self, verb: str, name: str, **_: str) -> None:
            self.models = {**self.models, name: {"state": "rolled_back"}}

    desk = Desk(configured(tmp_path))
    desk.__dict__["guard"] = Two()
    runbook(tmp_path, "r", {"name": "x", "action": "roll_back"})
    incident = open_incident(desk, "x", who="ann")
    (step,) = run_runbook(desk, incident.id, "r", who="ann")
    assert (step.state, step.result) == ("done", "rolled back: a")
