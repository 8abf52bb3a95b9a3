"""What operations know: kept once, shared by processes, and not to be changed unseen."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from withstand import WithstandError
from withstand.config import load_operations
from withstand.monitor import Act, Alert, Alerts, Audit, Campaign, Observation, Observations, Store
from withstand.respond import Entry, Incidents, Reviews, Step


def test_an_observation_counts_once(tmp_path: Path) -> None:
    seen = Observations(Store(tmp_path))
    events = [Observation(sli="M1", wall=float(n), source=f"run:{n}", bad=n > 2) for n in range(5)]
    assert seen.add(events) == 5
    assert seen.add([*events, replace(events[0], source="run:9", value=0.5, bad=None)]) == 1
    assert seen.of("M1", 1, 4) == events[1:4]
    assert [one.source for one in seen.of("M1", last=2)] == ["run:3", "run:4"]
    assert seen.of("M2") == []


def test_an_alert_fires_once_and_keeps_its_start_until_it_ends(tmp_path: Path) -> None:
    alerts = Alerts(Store(tmp_path))
    alert = Alert(labels={"severity": "page", "alertname": "A"}, starts=1.0)
    assert alert.fingerprint == replace(alert, starts=2.0, annotations={"x": "y"}).fingerprint
    assert alert.fingerprint != replace(alert, labels={**alert.labels, "model": "m"}).fingerprint
    assert alerts.fire(alert)
    assert not alerts.fire(replace(alert, starts=5.0, annotations={"so": "many"}))
    (found,) = alerts.all(open=True)
    assert (found.starts, found.annotations, found.severity) == (1.0, {"so": "many"}, "page")
    assert alerts.resolve(alert.fingerprint, 7.0)
    assert not alerts.resolve(alert.fingerprint, 8.0)
    assert alerts.fire(replace(alert, starts=9.0))
    assert [(one.starts, one.ends) for one in alerts.all()] == [(9.0, None), (1.0, 7.0)]


def test_a_campaign_is_one_row_however_often_it_grows(tmp_path: Path) -> None:
    alerts = Alerts(Store(tmp_path))
    grown = Campaign(id="c", model="m", kind="client", first=1.0, last=2.0, keys=("k",))
    for n in range(3):
        grown = replace(grown, flagged=n, last=2.0 + n)
        alerts.put_campaign(grown)
    assert alerts.campaigns() == [grown]
    assert alerts.campaign("c") == grown
    alerts.put_campaign(replace(grown, open=False))
    assert alerts.campaigns(open=True) == []


def test_an_audit_tells_that_a_line_was_changed_or_taken_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    audit = Audit(store)
    for n in range(4):
        assert audit.add(Act(who="ann", role="admin", action=f"a{n}", about="x")) == n + 1
    assert audit.verify() == 4
    assert [act.action for act in audit.last(2)] == ["a3", "a2"]
    for change in (
        "UPDATE audit SET told = replace(told, 'ann', 'bob') WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
    ):
        with sqlite3.connect(store.path) as file:
            file.execute(change)
        with pytest.raises(WithstandError, match=r"action 2 of .* does not follow"):
            audit.verify()


def add(folder: Path, who: str, count: int) -> None:
    audit = Audit(Store(folder))
    for n in range(count):
        audit.add(Act(who=who, role="system", action=str(n)))


def test_processes_write_beside_each_other(tmp_path: Path) -> None:
    Store(tmp_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add, args=(tmp_path, who, 20)) for who in "abc"]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    audit = Audit(Store(tmp_path))
    assert audit.verify() == 60
    assert [act.action for act in audit.last() if act.who == "a"] == [str(n) for n in range(20)][
        ::-1
    ]


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    audit = Audit(store)

    def half() -> None:
        with store.writing() as file:
            audit.within(file, Act(who="a", role="system", action="b"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert audit.verify() == 0


def test_only_its_owner_reads_it_and_a_newer_one_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    assert os.stat(store.folder).st_mode & 0o077 == os.stat(store.path).st_mode & 0o077 == 0
    with sqlite3.connect(store.path) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(WithstandError, match=r"has format 99, .* upgrade"):
        Store(store.folder)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / store.path.name).write_bytes(b"x" * 9000)
    with pytest.raises(WithstandError, match=r"cannot be used: .*; move it away"):
        Store(broken)
    (tmp_path / "file").write_text("")
    with pytest.raises(WithstandError, match=r"give another monitor\.folder"):
        Store(tmp_path / "file" / "store")


def test_an_incident_keeps_its_timeline_and_steps(tmp_path: Path) -> None:
    incidents = Incidents(Store(tmp_path))
    first = incidents.open("somebody searches", "page", campaign="c")
    assert (first.id, incidents.open("another", "ticket").id) == (1, 2)
    step = Step(number=1, runbook="r", name="slow down", action="throttle")
    incidents.put_step(1, step)
    incidents.put_step(1, replace(step, state="done", result="throttled"))
    incidents.note(1, Entry(wall=2.0, who="ann", kind="note", text="later"))
    incidents.note(1, Entry(wall=1.0, who="ann", kind="note", text="before"))
    changed = incidents.change(1, state="mitigated", mitigated=3.0, alerts=("f",))
    assert incidents.get(1) == changed == replace(
        first, state="mitigated", mitigated=3.0, alerts=("f",)
    )  # fmt: skip
    assert [one.state for one in incidents.steps(1)] == ["done"]
    assert [one.text for one in incidents.timeline(1)] == ["before", "later"]
    assert [one.id for one in incidents.all(state="open")] == [2]
    with pytest.raises(WithstandError, match="no incident 3"):
        incidents.get(3)


def test_the_last_review_of_an_input_counts(tmp_path: Path) -> None:
    reviews = Reviews(Store(tmp_path))
    assert reviews.of("f") is None
    reviews.put("f", "adversarial", "ann", seq=1, why="")
    last = reviews.put("f", "benign", "bob", seq=1, why="a scan")
    assert reviews.all() == [last]
    assert reviews.of("f") == last


def test_operations_need_no_model_and_name_a_misspelt_section(tmp_path: Path) -> None:
    path = tmp_path / "withstand.yaml"
    path.write_text("monitor: {folder: here}\n")
    told = load_operations(path)
    assert (told.guard, told.monitor.folder) == (None, "here")
    path.write_text("moniter: {folder: here}\n")
    with pytest.raises(WithstandError, match="did you mean 'monitor'"):
        load_operations(path)
    path.write_text("monitor: {foldre: here}\n")
    with pytest.raises(WithstandError, match=r"unknown key 'monitor\.foldre', did you mean"):
        load_operations(path)
