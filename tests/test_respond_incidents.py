"""One incident for one campaign, whoever looks at it, and however often."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from responding import LABELS, FakeGuard, attacked, configured, fake_guard, over, runbook

from withstand import WithstandError
from withstand.evidence.log import Log
from withstand.monitor import Alert, Alerts, Store
from withstand.respond import (
    Desk,
    Incidents,
    Responder,
    _responder,
    note,
    open_incident,
    postmortem,
    resolve,
    review,
    run_runbook,
)


@pytest.fixture
def guard() -> Iterator[FakeGuard]:
    with fake_guard() as found:
        yield found


def alert(folder: Path, **told: Any) -> Alert:
    made = Alert(**{"labels": LABELS, "starts": time.time(), **told})
    Alerts(Store(folder / "withstand-monitor")).fire(made)
    return made


def test_an_old_incident_is_seen_to_however_many_have_been_resolved_since(tmp_path: Path) -> None:
    path = configured(tmp_path)
    fired = attacked(tmp_path)
    responder = Responder(path)
    (first,) = responder.step()
    store = Store(tmp_path / "withstand-monitor")
    made = Incidents(store)
    with store.writing() as file:
        for _ in range(1001):
            made._opened(file, "another", "ticket", {"state": "resolved"})
    assert [one.id for one in made.unresolved()] == [first.id]
    over(tmp_path, fired)
    responder.step()
    assert made.get(first.id).state == "mitigated"


def test_a_flood_of_alerts_hides_none(tmp_path: Path) -> None:
    path = configured(tmp_path)
    first = attacked(tmp_path)
    later = [
        replace(first, labels={"alertname": "A", "n": str(n)}, starts=first.starts + n, campaign="")
        for n in range(1, 1002)
    ]
    with Store(tmp_path / "withstand-monitor").writing() as file:
        file.executemany(
            "INSERT INTO alerts VALUES (?, ?, NULL, '', ?)",
            [(one.fingerprint, one.starts, json.dumps(asdict(one))) for one in later],
        )
    assert [one.campaign for one in Responder(path).step()] == [first.campaign]


def test_what_a_person_resolved_stays_so_whoever_looked_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configured(tmp_path)
    fired = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    over(tmp_path, fired)
    written = _responder.recovered

    def meanwhile(*given: Any) -> None:
        written(*given)
        resolve(Desk(path), 1, who="ann", why="a test")

    monkeypatch.setattr(_responder, "recovered", meanwhile)
    responder.step()
    assert responder.desk.incidents.get(1).state == "resolved"


def test_one_incident_that_cannot_be_worked_on_keeps_no_other_waiting(tmp_path: Path) -> None:
    path = configured(tmp_path)
    fired = attacked(tmp_path, "c1")
    responder = Responder(path)
    responder.step()
    attacked(tmp_path, "c2")
    (responder.desk.folder(2) / ".lock").mkdir()
    over(tmp_path, fired)
    with pytest.raises(WithstandError, match="lock cannot be opened"):
        responder.step()
    found = {one.campaign: one.state for one in responder.desk.incidents.all()}
    assert found == {"c1": "mitigated", "c2": "open"}


def test_who_joins_with_an_earlier_start_is_not_who_opened_it(tmp_path: Path) -> None:
    from withstand.respond._run import first_alert

    path = configured(tmp_path)
    fired = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    earlier = {**fired.labels, "alertname": "Earlier", "severity": "ticket"}
    alert(tmp_path, labels=earlier, starts=fired.starts - 1000, campaign="c")
    responder.step()
    found = responder.desk.incidents.get(1)
    assert len(found.alerts) == 2
    assert first_alert(responder.desk, found) == replace(fired, annotations=fired.annotations)


def test_a_long_past_of_incidents_is_not_read_for_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "m")
    Incidents(store)
    plan = store.rows("EXPLAIN QUERY PLAN SELECT told FROM timeline WHERE incident = 1")
    assert "timeline_incident" in plan[0]["detail"]


def test_a_postmortem_tells_what_ended_however_much_has_ended_since(tmp_path: Path) -> None:
    path = configured(tmp_path)
    fired = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    over(tmp_path, fired)
    later = [
        replace(fired, labels={"alertname": "A", "n": str(n)}, starts=fired.starts + n,
                ends=fired.starts + n + 1, campaign="")
        for n in range(1, 1002)
    ]  # fmt: skip
    with responder.desk.store.writing() as file:
        file.executemany(
            "INSERT INTO alerts VALUES (?, ?, ?, '', ?)",
            [(one.fingerprint, one.starts, one.ends, json.dumps(asdict(one))) for one in later],
        )
    assert "Campaign has ended" in postmortem(responder.desk, 1)


def test_every_alert_is_in_one_incident_and_a_campaign_has_one(tmp_path: Path) -> None:
    path = configured(tmp_path)
    first = attacked(tmp_path)
    alert(tmp_path, labels={**first.labels, "alertname": "Other"}, campaign="c")
    alert(tmp_path, labels={**first.labels, "severity": "ticket"}, campaign="c")
    responder = Responder(path)
    (found,) = responder.step()
    assert (found.id, found.severity, found.title) == (1, "page", "somebody searches m")
    assert (found.campaign, found.model) == ("c", "m")
    assert responder.step() == Responder(path).step() == []
    assert len(responder.desk.incidents.get(1).alerts) == 3
    attacked(tmp_path, "d")
    assert [one.id for one in responder.step()] == [2]
    kinds = [entry.kind for entry in responder.desk.incidents.timeline(1)]
    assert kinds == ["alert"] * 3
    assert responder.desk.audit.verify() == 4


def test_what_ends_between_two_looks_is_an_incident_once_and_the_long_past_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, path = time.time(), configured(tmp_path)
    clock = [now]
    monkeypatch.setattr(_responder.time, "time", lambda: clock[0])

    def flash(name: str, ends: float, **labels: str) -> None:
        told = {"alertname": name, "severity": "page", "model": name, **labels}
        alert(tmp_path, labels=told, starts=ends - 5, ends=ends)

    flash("before anybody looked", now - 10)
    assert Responder(path).step() == []
    flash("between two looks", now + 1)
    flash("of no page", now + 1, severity="ticket")
    clock[0] += 2
    (found,) = Responder(path).step()
    assert (found.model, Responder(path).step()) == ("between two looks", [])
    assert Desk(path).incidents.get(1).state == "mitigated"
    # While nobody looked for an hour.
    flash("while it was down", now + 1000)
    clock[0] += 3600
    assert [one.model for one in Responder(path).step()] == ["while it was down"]
    # The monitor is slow to write it down.
    flash("told late", clock[0] - 60)
    assert [one.model for one in Responder(path).step()] == ["told late"]
    for one in Desk(path).incidents.unresolved():
        resolve(Desk(path), one.id, who="ann", why="a test")
    clock[0] += 30 * 86400
    assert Responder(path).step() == []
    assert Desk(path).incidents.watched(0.0) == pytest.approx(clock[0] - 300)


def test_what_was_over_before_anybody_looked_was_no_longer_for_that(tmp_path: Path) -> None:
    path = configured(tmp_path)
    first = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    desk = responder.desk
    campaign = desk.campaign(desk.incidents.get(1))
    assert campaign is not None
    desk.alerts.put_campaign(replace(campaign, open=False))
    desk.alerts.resolve(first.fingerprint, first.starts + 7)
    responder.step()
    (found,) = desk.observations.of("M9")
    assert found.value == pytest.approx(7)
    assert desk.incidents.get(1).mitigated == first.starts + 7


def test_a_page_after_the_mitigation_opens_the_incident_again(tmp_path: Path) -> None:
    path = configured(tmp_path)
    first = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    over(tmp_path, first)
    responder.step()
    before = responder.desk.incidents.get(1)
    assert before.mitigated is not None
    ticket = {**first.labels, "severity": "ticket"}
    alert(tmp_path, labels=ticket, campaign="c", starts=before.mitigated + 0.001)
    responder.step()
    assert responder.desk.incidents.get(1).state == "mitigated"
    again = alert(tmp_path, labels=first.labels, campaign="c", starts=before.mitigated + 0.002)
    assert responder.step() == []
    found = responder.desk.incidents.get(1)
    assert (found.state, found.mitigated) == ("open", None)
    lines = [entry.text for entry in responder.desk.incidents.timeline(1)]
    assert "Campaign fires, and the incident is open again" in lines
    for one in (again.fingerprint, replace(again, labels=ticket).fingerprint):
        responder.desk.alerts.resolve(one, time.time())
    responder.step()
    assert responder.desk.incidents.get(1).state == "mitigated"


def test_a_resolved_incident_waits_for_nobody(tmp_path: Path) -> None:
    runbook(tmp_path, "r", {"name": "ask", "action": "lift", "approval": True},
            {"name": "then", "action": "lift"})  # fmt: skip
    desk = Desk(configured(tmp_path))
    found = open_incident(desk, "x", who="ann")
    run_runbook(desk, found.id, "r", who="ann")
    assert postmortem(desk, found.id).count("[ ] step") == 2
    resolve(desk, found.id, who="ann", why="a test")
    assert "[ ] step" not in postmortem(desk, found.id)


def test_alerts_without_a_campaign_share_an_incident_by_their_labels(tmp_path: Path) -> None:
    for model, name in (("a", "X"), ("a", "Y"), ("b", "X")):
        alert(tmp_path, labels={"alertname": name, "severity": "page", "model": model})
    again = {"alertname": "X", "severity": "page", "model": "a", "rule": "slow"}
    alert(tmp_path, labels=again)
    assert len(Responder(configured(tmp_path)).step()) == 3
    for folder, by, count in (("one", [], 1), ("two", ["model"], 2)):
        other = tmp_path / folder
        other.mkdir()
        for told in Alerts(Store(tmp_path / "withstand-monitor")).all():
            alert(other, labels=told.labels)
        assert len(Responder(configured(other, group_by=by)).step()) == count


def test_what_a_permitted_attack_explains_and_tickets_open_nothing(tmp_path: Path) -> None:
    alert(tmp_path, suppressed="experiment-1")
    alert(tmp_path, labels={**LABELS, "severity": "ticket"})
    assert Responder(configured(tmp_path)).step() == []
    (found,) = Responder(configured(tmp_path, tickets=True)).step()
    assert found.severity == "ticket"
    alert(tmp_path, labels={**LABELS, "more": "x"})
    assert Responder(configured(tmp_path)).step() == []
    assert Desk(configured(tmp_path)).incidents.get(1).severity == "page"


def looks(path: Path, barrier: Any) -> None:
    responder = Responder(path)
    barrier.wait(10)
    for _ in range(3):
        responder.step()


def test_responders_beside_each_other_open_one_incident_for_each_campaign(
    tmp_path: Path, guard: FakeGuard
) -> None:
    runbook(tmp_path, "r", {"name": "x", "action": "block", "with": {"keys": "{campaign.keys}"}},
            when={"campaign": "client"})  # fmt: skip
    path = configured(tmp_path, guard.port, automatic=["r"])
    names = [str(number) for number in range(2)]
    for name in names:
        attacked(tmp_path, name, keys=(name,))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    several = [context.Process(target=looks, args=(path, barrier)) for _ in range(2)]
    for one in several:
        one.start()
    for one in several:
        one.join(60)
    assert [one.exitcode for one in several] == [0, 0]
    desk = Desk(path)
    assert sorted(one.campaign for one in desk.incidents.all()) == names
    Responder(path).step()
    assert len(guard.orders) == len(set(guard.orders)) == 2
    assert {len(desk.incidents.steps(number)) for number in (1, 2)} == {1}
    assert desk.audit.verify()


def killed_while_it_takes(path: Path) -> None:
    note = Incidents._note

    def dies(self: Incidents, *given: Any) -> None:
        note(self, *given)
        os.kill(os.getpid(), signal.SIGKILL)

    Incidents._note = dies  # type: ignore[method-assign]
    Responder(path).step()


def test_one_killed_while_it_opens_an_incident_leaves_none_half_open(tmp_path: Path) -> None:
    path = configured(tmp_path)
    attacked(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=killed_while_it_takes, args=(path,))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    desk = Desk(path)
    assert (desk.incidents.all(), desk.audit.verify()) == ([], 0)
    assert [one.id for one in Responder(path).step()] == [1]
    assert [entry.kind for entry in desk.incidents.timeline(1)] == ["alert"]


def test_what_comes_back_after_it_was_resolved_is_a_new_incident(tmp_path: Path) -> None:
    path = configured(tmp_path)
    first = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    resolve(responder.desk, 1, who="ann", why="a mistake")
    # The same alert goes on, and was dealt with.
    assert responder.step() == []
    over(tmp_path, first)
    attacked(tmp_path)
    assert [one.id for one in responder.step()] == [2]


def test_an_incident_is_over_when_its_alerts_are_and_a_person_closes_it(tmp_path: Path) -> None:
    path = configured(tmp_path)
    first = attacked(tmp_path)
    responder = Responder(path)
    responder.step()
    over(tmp_path, first)
    for _ in range(2):
        responder.step()
    found = responder.desk.incidents.get(1)
    assert (found.state, found.resolved) == ("mitigated", None)
    assert [e.kind for e in responder.desk.incidents.timeline(1)].count("over") == 1
    assert len(responder.desk.observations.of("M9")) == 1
    closed = resolve(responder.desk, 1, who="ann", why="all is well")
    assert closed.state == "resolved"
    assert resolve(responder.desk, 1, who="bob", why="again") == closed
    assert responder.desk.audit.last(1)[0].who == "ann"
    assert "| monitor | alert: Campaign has ended |" in postmortem(responder.desk, 1)


def test_only_runbooks_that_are_named_begin_by_themselves(tmp_path: Path, guard: FakeGuard) -> None:
    step = {"name": "x", "action": "block", "with": {"keys": "{campaign.keys}"}}
    for name, when in (("yes", {"campaign": "client"}), ("no", {"campaign": "client"}),
                       ("other", {"campaign": "distributed"})):  # fmt: skip
        runbook(tmp_path, name, step, when=when)
    attacked(tmp_path)
    responder = Responder(configured(tmp_path, guard.port, automatic=["yes", "other"]))
    for _ in range(2):
        responder.step()
    assert [one.runbook for one in responder.desk.incidents.steps(1)] == ["yes"]
    assert guard.held["incident-1-step-1-k1"]["who"] == "responder"
    with pytest.raises(WithstandError, match=r"automatic names 'mabye', which is no runbook"):
        Responder(configured(tmp_path, automatic=["mabye"]))


def test_what_begins_by_itself_begins_again_where_the_attack_is_back(
    tmp_path: Path, guard: FakeGuard
) -> None:
    step = {"name": "x", "action": "block", "with": {"keys": "{campaign.keys}"}}
    runbook(tmp_path, "yes", step, when={"campaign": "client"})
    first = attacked(tmp_path)
    responder = Responder(configured(tmp_path, guard.port, automatic=["yes"]))
    responder.step()
    over(tmp_path, first)
    responder.step()
    before = responder.desk.incidents.get(1)
    assert (before.state, len(responder.desk.incidents.steps(1))) == ("mitigated", 1)
    again = alert(tmp_path, labels=first.labels, campaign="c", starts=time.time())
    for _ in range(3):
        responder.step()
    assert [one.state for one in responder.desk.incidents.steps(1)] == ["done", "done"]
    # Both times count as a recovery, each from its own page.
    time.sleep(0.01)
    responder.desk.alerts.resolve(again.fingerprint, again.starts + 0.007)
    responder.step()
    first_time, second = responder.desk.observations.of("M9")
    assert second.value == pytest.approx(0.007, abs=1e-4)
    assert first_time.source != second.source


def test_a_person_notes_and_reviews_and_is_written_down(tmp_path: Path) -> None:
    path = configured(tmp_path)
    attacked(tmp_path)
    Responder(path).step()
    desk = Desk(path)
    with Log(tmp_path / "evidence") as log:
        log.append({"decision": "flag", "fingerprint": "f1"}, kind="decision")
    note(desk, 1, "looks like a scan", who="ann")
    assert desk.incidents.timeline(1)[-1].text == "looks like a scan"
    found = review(desk, "f1", "adversarial", who="ann", why="seen", label=3)
    assert (found, found.label, found.seq) == (desk.reviews.of("f1"), 3, 2)
    for fingerprint, verdict, words in (("f2", "benign", "no decision has the fingerprint 'f2'"),
                                        ("f1", "bad", "it is adversarial or benign")):  # fmt: skip
        with pytest.raises(WithstandError, match=words):
            review(desk, fingerprint, verdict, who="ann")
    actions = [act.action for act in desk.audit.last(2)]
    assert actions == ["review adversarial", "note"]
    assert replace(found, label=None) != found


def test_an_incident_by_hand_is_the_campaigns_own_where_it_has_one(tmp_path: Path) -> None:
    path = configured(tmp_path)
    desk = Desk(path)
    first = open_incident(desk, "complaints", who="ann", model="n")
    assert (first.id, first.severity, first.model) == (1, "ticket", "n")
    attacked(tmp_path)
    made = open_incident(desk, "by hand", who="ann", campaign="c")
    assert (made.id, made.model) == (2, "m")
    assert open_incident(desk, "again", who="bob", campaign="c") == made
    assert Responder(path).step() == []
    joined = desk.incidents.get(2)
    assert (len(joined.alerts), joined.severity) == (1, "page")
    with pytest.raises(WithstandError, match="there is no campaign 'd'"):
        open_incident(desk, "x", who="ann", campaign="d")
    assert desk.audit.verify() == 3
