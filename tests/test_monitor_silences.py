"""Silences: receivers are not told for a while, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from monitoring import NOW, Written, decision
from test_monitor import watching, written
from test_monitor_tell import Clock, hook
from typer.testing import CliRunner

from withstand._errors import OperationError
from withstand.cli._main import app
from withstand.monitor import Alert, Audit, Monitor, Silences, Store
from withstand.monitor._alerting import BROKEN

HELD = Alert(labels={"alertname": "A", "slo": "s", "severity": "page"}, starts=NOW - 60)


def test_labels_and_time_say_what_a_silence_covers(tmp_path: Path) -> None:
    silences = Silences(Store(tmp_path))
    one = silences.add({"slo": "s"}, 1.0, who="ann", why="a release", now=NOW)
    assert one.covers(HELD, NOW)
    assert one.covers(HELD, NOW + 3599)
    assert not one.covers(HELD, NOW + 3600)
    assert not one.covers(HELD, NOW - 1)
    assert not one.covers(replace(HELD, labels={"alertname": "A", "slo": "t"}), NOW)
    # What began and ended while it lasted is covered for ever, and what ended later is not.
    assert one.covers(replace(HELD, ends=NOW + 60), NOW + 90_000)
    assert not one.covers(replace(HELD, ends=NOW + 7200), NOW + 60)
    # Whoever breaks the evidence cannot hide it so.
    broken = replace(HELD, labels={"alertname": BROKEN, "slo": "s"})
    assert not one.covers(broken, NOW)
    assert [kept.id for kept in silences.all(NOW)] == [one.id]
    ended = silences.end(one.id, who="bob", now=NOW + 10)
    assert not ended.covers(HELD, NOW + 10)
    assert silences.all(NOW + 10) == []
    acts = Audit(Store(tmp_path)).last()
    assert [(act.who, act.action) for act in acts] == [("bob", "unsilence"), ("ann", "silence")]


@pytest.mark.parametrize(
    ("labels", "hours", "why", "said"),
    [
        ({}, 1.0, "x", "a silence of everything"),
        ({"alertname": BROKEN}, 1.0, "x", "of broken evidence"),
        ({"sl": "s"}, 1.0, "x", "no alert has a label 'sl', did you mean 'slo'"),
        ({"slo": "s"}, 0.0, "x", "0 hours cannot be"),
        ({"slo": "s"}, 169.0, "x", "at most 168"),
        ({"slo": "s"}, float("nan"), "x", "nan hours"),
        ({"slo": "s"}, 1.0, " ", "a reason is missing"),
    ],
)
def test_a_silence_that_cannot_be_is_refused(
    tmp_path: Path, labels: dict[str, str], hours: float, why: str, said: str
) -> None:
    silences = Silences(Store(tmp_path))
    with pytest.raises(OperationError, match=said):
        silences.add(labels, hours, who="ann", why=why, now=NOW)
    assert silences.all(0.0) == []
    with pytest.raises(OperationError, match="no silence 'ab' lasts"):
        silences.end("ab", who="ann", now=NOW)


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[tuple[Monitor, Clock, Any]]:
    """A monitor whose evidence shows an attack that it has not looked at yet."""
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(decision(n, flagged=("queries",)) for n in range(60)), after=0.1)
    clock.now = log.wall
    with hook() as taken:
        yield (
            watching(tmp_path, clock, receivers={"ops": {"webhook": taken.url}}, slos={}),
            clock, taken,
        )  # fmt: skip


def states(taken: Any) -> list[tuple[str, str]]:
    return [(one["commonLabels"]["alertname"], one["status"]) for one in taken.bodies()]


def look(one: Monitor) -> list[str]:
    one.step()
    one.receivers.deliver()
    return [alert.name for alert in one.alerts.all(open=True)]


def test_nobody_is_told_while_it_lasts_and_of_what_still_holds_afterwards(
    attacked: tuple[Monitor, Clock, Any],
) -> None:
    one, clock, taken = attacked
    silences = Silences(one.store)
    kept = silences.add({"severity": "page"}, 1.0, who="ann", why="a drill", now=clock.now)
    assert look(one) == ["WithstandCampaign"]
    assert taken.taken == []
    silences.end(kept.id, who="ann", now=clock.now)
    look(one)
    assert states(taken) == [("WithstandCampaign", "firing")]


def test_what_ends_meanwhile_is_told_to_whoever_knows_of_it_and_to_nobody_else(
    attacked: tuple[Monitor, Clock, Any],
) -> None:
    one, clock, taken = attacked
    silences = Silences(one.store)
    look(one)
    assert states(taken) == [("WithstandCampaign", "firing")]
    known = one.alerts.all(open=True)[0]
    silences.add({"severity": "page"}, 1.0, who="ann", why="a drill", now=clock.now)
    unknown = replace(known, labels={**known.labels, "campaign": "another"})
    one.alerts.fire(unknown)
    for alert in (known, unknown):
        one.alerts.resolve(alert.fingerprint, clock.now)
    recent = one.alerts.all(open=False)
    assert len(recent) == 2
    lasting = silences.all(clock.now)

    def silenced(alert: Alert) -> bool:
        return any(held.covers(alert, clock.now) for held in lasting)

    for _ in range(2):
        one.receivers.put(recent, clock.now, silenced=silenced)
        one.receivers.deliver()
        # The second time the silence is over.
        clock.now += 7200
    assert states(taken) == [("WithstandCampaign", "firing"), ("WithstandCampaign", "resolved")]
    assert taken.bodies()[-1]["commonLabels"] == known.labels


def test_what_began_and_ended_in_a_silence_is_not_told_afterwards(
    attacked: tuple[Monitor, Clock, Any],
) -> None:
    one, clock, taken = attacked
    Silences(one.store).add({"severity": "page"}, 2.0, who="ann", why="a drill", now=clock.now)
    assert look(one) == ["WithstandCampaign"]
    clock.now += 4000
    assert look(one) == []
    clock.now += 7200
    assert look(one) == []
    assert taken.taken == []


def test_the_command_line_silences_lists_and_ends(tmp_path: Path) -> None:
    config = str(written(tmp_path))

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["monitor", *words, "--config", config])

    assert run("silences").output == "no silences\n"
    done = run("silence", "slo=fooled", "model=m", "--hours", "2", "--why", "a test", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["labels"] == {"slo": "fooled", "model": "m"}
    assert told["until"] - told["since"] == pytest.approx(7200)
    shown = run("silences").output
    assert told["id"] in shown
    assert 'slo=fooled model=m  "a test"' in shown
    assert json.loads(run("silences", "--json").output) == [told]
    assert run("unsilence", told["id"]).exit_code == 0
    assert run("silences").output == "no silences\n"
    assert isinstance(run("silence", "slo", "--why", "x").exception, OperationError)
    assert isinstance(run("unsilence", told["id"]).exception, OperationError)
