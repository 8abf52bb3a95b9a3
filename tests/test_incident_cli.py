"""The verb incident: what it prints, how it ends, and who is said to have done it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import started
from responding import FakeGuard, attacked, configured, fake_guard, runbook
from typer.testing import CliRunner, Result

from withstand._errors import WithstandError
from withstand.cli._incident import incident
from withstand.evidence.log import Log
from withstand.respond import Desk

STEPS = (
    {"name": "slow", "action": "throttle", "with": {"keys": "{campaign.keys}"}, "contains": True},
    {"name": "stop", "action": "block", "with": {"keys": "{campaign.keys}"}, "approval": True},
)


@pytest.fixture
def guard() -> Iterator[FakeGuard]:
    with fake_guard() as found:
        yield found


@pytest.fixture
def path(tmp_path: Path, guard: FakeGuard) -> Path:
    runbook(tmp_path, "r", *STEPS, when={"campaign": "client"})
    with Log(tmp_path / "evidence") as log:
        log.append({"decision": "flag", "fingerprint": "f1"}, kind="decision")
    attacked(tmp_path)
    return configured(tmp_path, guard.port)


def said(path: Path, *words: str) -> Result:
    return CliRunner().invoke(incident, [*words, "--config", str(path)])


def test_an_incident_from_its_alert_to_its_end(path: Path, guard: FakeGuard) -> None:
    assert said(path, "list").stdout == "no incidents\n"
    assert "incident 1 opened: somebody searches m" in said(path, "watch", "--once").output
    assert "somebody searches m" in said(path, "list").stdout
    plan = said(path, "run", "1", "r", "--dry-run")
    assert "1. slow (throttle): throttle client k1" in plan.stdout
    assert "2. stop (block, after approval)" in plan.stdout
    assert guard.orders == []
    ran = said(path, "run", "1", "r", "--who", "ann", "--json")
    assert ran.exit_code == 0, ran.output
    assert [step["state"] for step in json.loads(ran.stdout)] == ["done", "approval"]
    assert [one["id"] for one in json.loads(said(path, "list", "--json").stdout)] == [1]
    assert said(path, "list", "--state", "mitigated").stdout.count("\n") == 2
    agreed = said(path, "approve", "1", "2", "--who", "bob")
    assert (agreed.exit_code, "stop (block): done" in agreed.stdout) == (0, True)
    assert guard.held["incident-1-step-2-k1"]["who"] == "bob"
    assert said(path, "note", "1", "a person looked").exit_code == 0
    assert said(path, "review", "f1", "--verdict", "benign", "--who", "ann").exit_code == 0
    shown = said(path, "show", "1").stdout
    for line in ("incident 1: somebody searches m", "mitigated, page", "bob: step 2, stop: done",
                 "a person looked", "campaign c: client, 1 clients, 40 of 90"):  # fmt: skip
        assert line in shown, line
    told = json.loads(said(path, "show", "1", "--json").stdout)
    assert (told["about"]["id"], len(told["steps"]), told["state"]) == ("c", 2, "mitigated")
    assert "# Postmortem of incident 1" in said(path, "postmortem", "1").stdout
    to = path.parent / "p.md"
    assert said(path, "postmortem", "1", "--output", str(to)).exit_code == 0
    assert to.read_text().startswith("# Postmortem")
    assert said(path, "resolve", "1", "--why", "over").exit_code == 0
    assert said(path, "list", "--state", "open").stdout == "no incidents\n"
    assert said(path, "open", "complaints").stdout == "2\n"
    assert "sound: 5 runbooks" in said(path, "runbooks", "check").stdout
    assert "canary-fooled: " in said(path, "runbooks").stdout
    names = [one["name"] for one in json.loads(said(path, "runbooks", "--json").stdout)]
    assert "r" in names


def test_a_failed_step_is_exit_code_1(path: Path, guard: FakeGuard) -> None:
    said(path, "watch", "--once")
    guard.status = 409
    failed = said(path, "run", "1", "r")
    assert (failed.exit_code, "failed: it cannot" in failed.stdout) == (1, True)


def test_mistakes_are_one_line_with_exit_code_2(path: Path) -> None:
    said(path, "watch", "--once")
    mistakes = {
        ("show", "9"): "there is no incident 9",
        ("run", "1", "nothing"): "there is no runbook 'nothing'; they are attack-by-one-client",
        ("approve", "1", "7"): "step 7 of incident 1 is not there",
        ("open", "x", "--severity", "bad"): "--severity is 'bad'; it is page or ticket",
        ("list", "--state", "closed"): "--state is 'closed'; it is open",
        ("review", "f9", "--verdict", "benign"): "no decision has the fingerprint 'f9'",
        ("review", "f1", "--verdict", "bad"): "it is adversarial or benign",
        ("replay", "1"): "vault is not there; let guard.evidence.inputs be flagged",
        ("runbooks", "chek"): "write `withstand incident runbooks check`",
    }
    for words, line in mistakes.items():
        found = said(path, *words)
        assert isinstance(found.exception, WithstandError), (words, found.output)
        assert line in str(found.exception), words
        assert "\n" not in str(found.exception)


def test_what_others_wrote_does_not_steer_a_terminal(path: Path) -> None:
    desk = Desk(path)
    desk.incidents.open("a\x1b[2Jb\nc", "page")
    for words in (("list",), ("show", "1")):
        assert "\x1b" not in said(path, *words).stdout


def test_the_watch_works_until_it_is_ended(path: Path, guard: FakeGuard) -> None:
    configured(path.parent, guard.port, automatic=["r"])
    with started("incident", "watch", folder=path.parent) as (process, told):
        until = time.monotonic() + 60
        while len(guard.orders) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(process, signal.SIGTERM)
        while "ended" not in told() and time.monotonic() < until:
            time.sleep(0.02)
        lines = told().splitlines()
    assert sorted(guard.orders) == ["incident-1-step-1-k1", "incident-1-step-1-k2"]
    assert lines == [
        "responder: looks every 0.05 seconds",
        "incident 1 opened: somebody searches m",
        "responder: ended",
    ]
    assert [step.state for step in Desk(path).incidents.steps(1)] == ["done", "approval"]
