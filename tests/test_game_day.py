"""A game day: what happened is read from the store and the guard, and times are what they were."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from withstand._errors import OperationError
from withstand.evidence.log import Place, read
from withstand.monitor import Alert, Alerts, Campaign, Observations, Store
from withstand.redteam import Run, sign
from withstand.respond import Entry, Incidents
from withstand.workflows import GameDay, game_day, loop
from withstand.workflows.loop._processes import Processes, answers, until
from withstand.workflows.loop._site import KEY as VARIABLE
from withstand.workflows.loop._site import lay_out

KEY = "a" * 64


class Attack:
    """A campaign that goes on until it is halted, or fails."""

    def __init__(self, *, error: str = "", stopped: str = "") -> None:
        self.brakes, self._halted = self, threading.Event()
        self._error, self._stopped = error, stopped

    def halt(self, why: str) -> None:
        self._why = why
        self._halted.set()

    def run(self) -> list[Run]:
        if self._error:
            raise OperationError(self._error)
        if not self._stopped:
            self._halted.wait(60)
        why = self._stopped or self._why
        return [
            Run(
                id="r", target="t", attack="Square linf 0.1", began=1.0, tried=7, fooled=2,
                queries=90, state="stopped", stopped=why,
            )
        ]  # fmt: skip


class Guard:
    """What was ordered."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = [{"id": "old", "key": "", "action": "coarsen"}]

    def mitigations(self) -> list[dict[str, Any]]:
        return self.orders


def rehearsed(attack: Attack, store: Store, guard: Guard, **more: Any) -> GameDay:
    told: Any = attack
    return game_day(told, store, guard, key=KEY, model="m", **more)


def campaign(**changes: Any) -> Campaign:
    now = time.time()
    told = {"id": "c1", "model": "m", "kind": "client", "first": now, "last": now, "keys": (KEY,)}
    return Campaign(**{**told, **changes})


def test_the_times_of_a_game_day_are_those_of_page_and_action(tmp_path: Path) -> None:
    store, guard = Store(tmp_path), Guard()
    lines: list[str] = []
    walls: dict[str, float] = {}
    alerts = Alerts(store)
    # Somebody else's campaign, and an order from before, are not answers to this one.
    alerts.put_campaign(campaign(id="other", keys=("b" * 64,)))

    def on_duty() -> None:
        time.sleep(0.6)
        alerts.put_campaign(campaign())
        labels = {"alertname": "WithstandCampaign", "severity": "page", "campaign": "c1"}
        walls["paged"] = time.time()
        alerts.fire(Alert(labels=labels, starts=walls["paged"], campaign="c1"))
        time.sleep(0.7)
        incidents = Incidents(store)
        one = incidents.open("an [attack]", "page", campaign="c1")
        incidents.note(one.id, Entry(wall=time.time(), who="ann", kind="note", text="<b>hm</b>"))
        walls["acted"] = time.time()
        guard.orders.append({"id": "x", "key": KEY, "action": "throttle", "who": "ann"})

    thread = threading.Thread(target=on_duty)
    thread.start()
    found = rehearsed(Attack(), store, guard, patience=30, told=lines.append)
    thread.join()
    assert found.campaign == "c1"
    assert found.detect == pytest.approx(walls["paged"] - found.began, abs=1e-3)
    assert found.detect is not None
    assert found.detect > 0.3
    assert found.mitigated is not None
    # It looks twice a second.
    assert walls["acted"] <= found.mitigated < walls["acted"] + 5
    assert found.recover == pytest.approx(found.mitigated - walls["paged"])
    assert found.actions == ("throttle by ann",)
    assert [line.split()[0] for line in lines] == ["seen", "paged", "opened", "mitigated"]
    assert found.outcome(60, 900) == "pass"
    assert found.outcome(0.01, 900) == "fail"
    assert found.outcome(60, 0.0001) == "fail"
    page = found.to_markdown()
    assert "attacked inputs: 7, fooled: 2, queries: 90" in page
    assert "\\<b\\>hm" in page
    assert "ended early" not in page
    (m8,), (m9,) = (Observations(store).of(sli) for sli in ("M8", "M9"))
    assert (m8.value, m9.value) == (found.detect, found.recover)


def test_where_nobody_notices_the_game_day_is_failed(tmp_path: Path) -> None:
    found = rehearsed(Attack(), Store(tmp_path), Guard(), patience=0.6)
    assert found.outcome(60, 900) == "fail"
    assert found.to_markdown().count("has not happened") == 6
    assert not Observations(Store(tmp_path)).of("M8")


def test_an_alert_that_was_suppressed_is_no_page(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Alerts(store).put_campaign(campaign(last=time.time() + 60))
    labels = {"alertname": "WithstandCampaign", "severity": "page", "campaign": "c1"}
    Alerts(store).fire(Alert(labels=labels, starts=time.time(), campaign="c1", suppressed="x"))
    found = rehearsed(Attack(), store, Guard(), patience=0.6)
    assert found.seen is not None
    assert found.paged is None
    assert found.outcome(60, 900) == "fail"


def test_an_attack_that_had_to_end_shows_nothing(tmp_path: Path) -> None:
    attack = Attack(stopped="the guard is ending")
    found = rehearsed(attack, Store(tmp_path), Guard(), patience=30)
    assert found.outcome(60, 900) == "inconclusive"
    assert "the attack ended early: the guard is ending" in found.to_markdown()
    refused = Attack(error="the scope expired")
    with pytest.raises(OperationError, match="the scope expired"):
        rehearsed(refused, Store(tmp_path), Guard(), patience=30)


def test_a_report_without_data_says_so() -> None:
    page = GameDay(key=KEY, model="m", began=0.0).to_markdown()
    assert "time to detect: has not happened" in page
    assert "Nothing is on the timeline" in page


@pytest.mark.slow
def test_guard_monitor_and_responder_notice_an_attack_that_nobody_announced(
    tmp_path: Path,
) -> None:
    site = lay_out(tmp_path)
    scope = yaml.safe_load((tmp_path / "scope.yaml").read_text())
    (tmp_path / "scope.yaml").write_text(yaml.safe_dump({**scope, "surprise": True}))
    sign(tmp_path / "scope.yaml", tmp_path / "owner.key")
    config = ("--config", str(site.config))
    server = Path(loop.__file__).with_name("_server.py")
    processes = Processes(tmp_path / "logs", {VARIABLE: site.secret})
    try:
        words = (str(tmp_path), "build", "v1.safetensors", str(site.ports["v1"]))
        processes.program("v1", str(server), *words)
        processes.verb("guard", "guard", "serve", *config)
        processes.verb("monitor", "monitor", "run", *config)
        processes.verb("responder", "incident", "watch", *config)
        up = partial(answers, site.ports["v1"], "/v2/health/ready")
        until(up, "the model server's answer", processes)
        until(partial(answers, site.ports["admin"], "/health/ready"), "the guard's", processes)
        report = tmp_path / "game-day.md"
        told = ("--output", str(report), "--quiet", "--detect", "120")
        processes.run("game-day", "redteam", "game-day", *config, *told)
    finally:
        processes.end()
    page = report.read_text()
    assert "throttle by responder" in page
    assert "has not happened" not in page
    store = Store(tmp_path / "monitor")
    sources = [one.source for one in Observations(store).of("M8")]
    assert any(source.startswith("game-day:") for source in sources)
    asked = [
        place.record.content
        for place in read(tmp_path / "evidence")
        if isinstance(place, Place) and place.record.content.get("key") == site.red
    ]
    assert len(asked) > 20
    assert not any("experiment" in one or "probe" in one for one in asked)
