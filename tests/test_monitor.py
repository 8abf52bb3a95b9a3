"""The monitor as a whole: evidence in, alerts out, once each, and what Prometheus is told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring import NOW, Written, decision
from processes import started, withstand
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from test_monitor_tell import Clock, hook
from typer.testing import CliRunner

from withstand import WithstandError
from withstand._errors import OperationError
from withstand.cli._main import app
from withstand.evidence.log import Log
from withstand.monitor import Alert, Alerts, Monitor, Observation, Observations, Store, figures
from withstand.monitor.serve import Port

SLOS: dict[str, Any] = {
    "queries": {"sli": "M7", "objective": 0.99},
    "fooled": {"sli": "M1", "budget": 20, "model": "m"},
}


def written(folder: Path, **monitor: Any) -> Path:
    path = folder / "withstand.yaml"
    guard = {"upstream": "http://127.0.0.1:9", "open": True, "admin": "127.0.0.1:9",
             "evidence": {"folder": "evidence"}}  # fmt: skip
    told = {"folder": "store", "listen": "127.0.0.1:0", "slos": SLOS, **monitor}
    path.write_text(yaml.safe_dump({"guard": guard, "monitor": told}, sort_keys=False))
    return path


def watching(folder: Path, clock: Clock, **monitor: Any) -> Monitor:
    return Monitor(written(folder, **monitor), clock=clock, alive=lambda: True)


def names(alerts: tuple[Any, ...]) -> list[str]:
    return sorted(f"{one.name} {one.severity}" for one in alerts)


def test_an_attack_is_one_page_and_its_time_to_detect_is_kept(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(decision(n) for n in range(200)), after=0.1)
    with hook() as taken:
        one = watching(tmp_path, clock, receivers={"ops": {"webhook": taken.url}})
        clock.now = log.wall
        assert names(one.step().fired) == []
        first = log.wall + 0.1
        log.add(*(decision(n, flagged=["queries"]) for n in range(300)), after=0.1)
        clock.now = log.wall + 4.0
        look = one.step()
        assert names(look.fired) == [
            "WithstandBudgetBurn page", "WithstandBudgetBurn ticket", "WithstandCampaign page",
        ]  # fmt: skip
        (campaign,) = look.campaigns
        assert (campaign.kind, campaign.flagged) == ("client", 300)
        clock.now += 10
        log.add(*(decision(n, flagged=["queries"]) for n in range(300, 400)), after=0.01)
        again = one.step()
        assert (again.fired, again.resolved) == ((), ())
        assert one.receivers.deliver() == 3
        assert one.receivers.deliver() == 0
        (m8,) = (found for found in figures(one.store, clock.now) if found.sli.id == "M8")
        assert m8.interval.n == 1
        assert m8.interval.value == pytest.approx(log.wall - 1.0 + 4.0 - first, abs=1e-3)
        # Quiet for an hour: the campaign is over, and so is what burns fast.
        clock.now += 3700
        log.wall, log.mono = clock.now, log.mono + 3700
        log.add(*(decision(n) for n in range(400, 420)), after=0.01)
        clock.now = log.wall
        assert names(one.step().resolved) == ["WithstandBudgetBurn page", "WithstandCampaign page"]
        assert one.receivers.deliver() == 2
    assert sorted(body["status"] for body in taken.bodies()) == [*["firing"] * 3, *["resolved"] * 2]


def test_an_experiment_is_kept_and_wakes_nobody(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(decision(n, flagged=["queries"], experiment="run-1") for n in range(100)))
    clock.now = log.wall
    with hook() as taken:
        one = watching(tmp_path, clock, receivers={"ops": {"webhook": taken.url}})
        look = one.step()
        assert [(a.name, a.suppressed) for a in look.fired] == [("WithstandCampaign", "run-1")]
        assert one.receivers.deliver() == 0
        assert Observations(one.store).of("M8") == []


def test_an_attack_that_was_over_before_anybody_looked_is_told_all_the_same(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(decision(n, flagged=["queries"]) for n in range(60)))
    clock.now = log.wall + 5000
    one = watching(tmp_path, clock, campaigns={"quiet": 3600})
    assert "WithstandCampaign page" in names(one.step().fired)
    assert names(one.step().resolved) == ["WithstandCampaign page"]


def test_what_is_read_late_does_not_break_a_campaign_in_two(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    for n in range(300):
        log.add(decision(n, flagged=["queries"] if n < 40 or n % 50 == 0 else []), after=10.0)
    clock.now = log.wall + 60
    one = watching(tmp_path, clock, campaigns={"quiet": 900})
    assert one.follower is not None
    one.follower._most = 20
    while one.step().followed.behind:
        pass
    (campaign,) = Alerts(one.store).campaigns(open=True)
    assert campaign.flagged == 45


def test_a_guard_that_is_silent_is_a_page_until_it_answers(tmp_path: Path) -> None:
    clock, answers = Clock(), [True]
    one = Monitor(written(tmp_path), clock=clock, alive=lambda: answers[0])
    seen = []
    for seconds, lives in ((0, True), (30, False), (59, False), (61, False), (90, True)):
        clock.now, answers[0] = NOW + seconds, lives
        look = one.step()
        seen.append((names(look.fired), names(look.resolved)))
    silent = ["WithstandGuardSilent page"]
    assert seen == [([], []), ([], []), ([], []), (silent, []), ([], silent)]
    # Set back by a day, the clock must not hide that nobody answers.
    answers[0] = False
    clock.now = NOW - 86_400
    one.step()
    clock.now += 61
    assert names(one.step().fired) == silent


def test_the_guard_is_asked_at_its_own_port(tmp_path: Path) -> None:
    clock = Clock()
    one = Monitor(written(tmp_path, silent=5), clock=clock)
    one.step()
    clock.now += 6
    (fired,) = one.step().fired
    assert "127.0.0.1:9 has not answered for 6 s" in fired.annotations["summary"]


def test_evidence_that_was_changed_is_a_page(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(decision(1), decision(2))
    whole = log.segment.read_bytes()
    log.segment.write_bytes(whole.replace(b"acme", b"evil", 1))
    one = watching(tmp_path, clock)
    (fired,) = one.step().fired
    assert (fired.name, fired.severity) == ("WithstandEvidenceBroken", "page")
    assert "record 1" in fired.annotations["summary"]
    assert one.step().fired == ()
    log.segment.write_bytes(whole)
    assert names(one.step().resolved) == ["WithstandEvidenceBroken page"]


def test_no_data_is_a_ticket_after_a_while_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    one = watching(tmp_path, clock, no_data=2)
    assert one.step().fired == ()
    clock.now += 2 * 3600 + 1
    look = one.step()
    assert names(look.fired) == ["WithstandNoData ticket"] * 2
    assert {a.labels["slo"] for a in look.fired} == set(SLOS)
    Observations(one.store).add(
        [Observation(sli="M1", wall=clock.now, source="p", bad=False, model="m")]
    )
    (over,) = one.step().resolved
    assert over.labels["slo"] == "fooled"
    # A restart does not begin the while anew.
    assert Monitor(one.path, clock=clock, alive=lambda: True).step().fired == ()
    assert len(Alerts(one.store).all(open=True)) == 1


def test_a_figure_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(decision(1))
    (tmp_path / "robustness-coverage.json").write_text("{")
    look = watching(tmp_path, clock).step()
    assert look.followed.records == 1
    assert names(look.fired) == ["WithstandNoData ticket"]


def test_one_file_that_cannot_be_read_does_not_keep_the_other_from_being_read(
    tmp_path: Path,
) -> None:
    clock = Clock()
    (tmp_path / "robustness-coverage.json").write_text('{"tests": 40, "robustness": 10}')
    for name in ("b.json", "a.json"):
        (tmp_path / name).write_text("{}")
    monitor = watching(tmp_path, clock, degradation={"before": "b.json", "after": "a.json"})
    look = monitor.step()
    assert names(look.fired) == ["WithstandNoData ticket"]
    told = [one for one in figures(monitor.store, clock.now) if one.sli.id == "M10"]
    assert [one.interval.value for one in told] == [0.25]


def test_probes_that_fool_the_model_spend_a_budget_of_events(tmp_path: Path) -> None:
    clock = Clock()
    one = watching(tmp_path, clock)
    probes = [
        Observation(sli="M1", wall=NOW - n, source=f"p{n}", bad=n < 5, model="m") for n in range(40)
    ]
    Observations(one.store).add(probes)
    look = one.step()
    (slo,) = (told for told in look.slos if told.slo.name == "fooled")
    assert (slo.budget_left, slo.firing) == (0.75, ("1h", "6h", "1d", "3d"))
    assert names(look.fired) == ["WithstandBudgetBurn page", "WithstandBudgetBurn ticket"]
    assert look.fired[0].labels["model"] == "m"


def test_a_store_without_room_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, stop, looks = watching(tmp_path, Clock(), every=0.001), threading.Event(), []

    def full() -> None:
        looks.append(1)
        if len(looks) == 3:
            stop.set()
        raise OperationError("no room")

    monkeypatch.setattr(one, "step", full)
    one.run(stop)
    assert [record.getMessage() for record in caplog.records] == ["no room"] * 3


def test_the_end_of_an_old_alert_is_told_however_many_newer_ones_have_ended(
    tmp_path: Path,
) -> None:
    clock = Clock()
    with hook() as taken:
        one = watching(
            tmp_path, clock, slos={}, coverage="c.json", receivers={"ops": {"webhook": taken.url}}
        )
        (tmp_path / "c.json").write_text("{")
        assert names(one.step().fired) == ["WithstandNoData ticket"]
        assert one.receivers.deliver() == 1
        with one.store.writing() as file:
            file.executemany(
                "INSERT INTO alerts VALUES (?, ?, ?, '', ?)",
                [
                    (alert.fingerprint, alert.starts, alert.ends, json.dumps(asdict(alert)))
                    for alert in (
                        Alert(
                            labels={"alertname": "WithstandCampaign", "campaign": str(n)},
                            starts=clock.now + 1, ends=clock.now + 2, suppressed="x",
                        )
                        for n in range(1000)
                    )
                ],
            )  # fmt: skip
        clock.now += 10
        (tmp_path / "c.json").unlink()
        assert names(one.step().resolved) == ["WithstandNoData ticket"]
        assert one.receivers.deliver() == 1


def test_two_monitors_of_one_store_fire_once(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(decision(n, flagged=["queries"]) for n in range(30)))
    clock.now = log.wall
    one = watching(tmp_path, clock)
    assert len(one.step().fired) == 3
    other = watching(tmp_path, clock)
    assert other.step().fired == ()


def test_prometheus_is_told_what_the_operator_has_named_alone(tmp_path: Path) -> None:
    clock, log = Clock(), Written(tmp_path / "evidence")
    log.add(*(decision(n, key="secret-key", flagged=["queries"] if n < 60 else [])
              for n in range(200)))  # fmt: skip
    clock.now = log.wall
    one = watching(tmp_path, clock, receivers={"ops": {"alertmanager": "http://127.0.0.1:9"}})
    one.step()
    port = Port(one)
    port.start()
    try:
        base = f"http://{port.address}"
        plain = told(f"{base}/metrics")
        wanted = "application/openmetrics-text; version=1.0.0"
        rich = told(f"{base}/metrics", Accept=wanted)
        assert json.loads(told(f"{base}/health"))["live"] is True
        for _ in range(5):
            told(f"{base}/metrics")
        # One of this thread's, and perhaps of one that has just answered.
        assert len(one.store._all) <= 2
        clock.now += 10_000
        for path, host, status in (
            ("/health", "localhost", 503), ("/metrics", "evil.example", 421), ("/x", "[::1]", 404),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError, match=str(status)) as caught:
                told(f"{base}{path}", Host=host)
            caught.value.close()
    finally:
        port.close()
    assert "secret-key" not in plain + rich
    assert not re.search(r"f-\d+", plain + rich)
    samples = {
        (s.name, s.labels.get("slo", s.labels.get("sli", ""))): s
        for family in prometheus(plain) for s in family.samples
    }  # fmt: skip
    assert samples["withstand_sli_events_total", "queries"].value == 200
    assert samples["withstand_sli_bad_total", "queries"].value == 60
    # There from the beginning, so that Prometheus sees the first event.
    assert samples["withstand_sli_bad_total", "fooled"].value == 0
    assert ("withstand_slo_budget_left_ratio", "fooled") not in samples
    assert samples["withstand_slo_budget_left_ratio", "queries"].value == pytest.approx(-29)
    assert samples["withstand_sli", "M7"].value == pytest.approx(0.3)
    assert ("withstand_sli", "M1") not in samples
    assert samples["withstand_monitor_outbox_messages", ""].value == 3
    (example,) = (
        s.exemplar for family in openmetrics(rich) for s in family.samples
        if s.name == "withstand_sli_bad_total" and s.labels["slo"] == "queries"
    )  # fmt: skip
    assert (example.labels, float(example.timestamp)) == ({"request_id": "r-59"}, NOW + 60)


def told(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return str(answer.read().decode())


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    one = watching(tmp_path, Clock())
    port = Port(one)
    try:
        two = watching(tmp_path, Clock(), listen=port.address)
        with pytest.raises(WithstandError, match=r"monitor\.listen .* give another address"):
            Port(two)
    finally:
        port._server.server_close()


def attacked(folder: Path) -> None:
    with Log(folder / "evidence") as log:
        for n in range(60):
            log.append(decision(n, flagged=["queries"]))


def test_the_monitor_runs_and_ends(tmp_path: Path) -> None:
    attacked(tmp_path)
    with hook() as taken:
        written(tmp_path, every=0.05, receivers={"ops": {"webhook": taken.url}})
        with started("monitor", "run", folder=tmp_path) as (process, said):
            until = time.monotonic() + 100
            while len(taken.taken) < 3 and time.monotonic() < until:
                time.sleep(0.02)
            found = re.search(r"figures at (http://\S+)", said())
            assert found is not None, said()
            assert "withstand_alerts_firing" in told(f"{found[1]}/metrics")
            os.kill(process, signal.SIGTERM)
            while alive(process) and time.monotonic() < until:
                time.sleep(0.02)
            assert not alive(process)
    assert {body["status"] for body in taken.bodies()} == {"firing"}
    assert "Traceback" not in said()


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_verbs_tell_and_exit_as_they_should(tmp_path: Path) -> None:
    path = written(tmp_path)
    run = CliRunner()

    def said(*words: str, code: int) -> str:
        done = run.invoke(app, ["monitor", *words, "--config", str(path)])
        assert done.exit_code == code, (words, done.output, done.exception)
        return done.stdout

    assert "M1  fooling rate" in said("status", code=3)
    assert said("alerts", code=0) == "no alerts\n"
    assert "receivers is empty" in said("check", code=1)
    assert json.loads(said("check", "--json", code=1))["warnings"]
    attacked(tmp_path)
    said("run", "--once", code=0)
    assert "queries (M7, 30 days)" in said("status", code=1)
    found = json.loads(said("status", "--json", code=1))
    assert [one["sli"] for one in found["figures"]] == [f"M{n}" for n in range(1, 11)]
    (slo, _) = found["slos"]
    assert (slo["slo"], slo["bad"], slo["n"], slo["verdict"]) == ("queries", 60, 60, "spent")
    assert "60 flagged requests of one client" in said("alerts", code=1)
    told = json.loads(said("alerts", "--all", "--json", code=1))
    # The guard has not been silent for long.
    assert sorted(one["severity"] for one in told) == ["page", "page", "ticket"]
    output = tmp_path / "rules"
    files = json.loads(said("rules", "--output", str(output), "--json", code=0))["files"]
    assert sorted(Path(one).name for one in files) == sorted(os.listdir(output))
    broken = run.invoke(app, ["monitor", "rules", "--config", str(path), "--output", str(path)])
    assert isinstance(broken.exception, WithstandError)


def test_a_store_that_is_new_is_made_by_the_command_line(tmp_path: Path) -> None:
    written(tmp_path)
    done = withstand("monitor", "status", folder=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert Store(tmp_path / "store").rows("SELECT * FROM alerts") == []


def test_any_address_of_this_machine_can_be_asked(tmp_path: Path) -> None:
    port = Port(watching(tmp_path, Clock(), listen="127.0.0.2:0"))
    port.start()
    try:
        assert told(f"http://{port.address}/metrics")
        with pytest.raises(urllib.error.HTTPError, match="421") as caught:
            told(f"http://{port.address}/metrics", Host="127.0.0.2.evil.example")
        caught.value.close()
    finally:
        port.close()


def test_a_port_that_has_not_begun_can_be_closed(tmp_path: Path) -> None:
    port = Port(watching(tmp_path, Clock()))
    closing = threading.Thread(target=port.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


def test_prometheus_is_told_of_every_alert_that_holds(tmp_path: Path) -> None:
    one = watching(tmp_path, Clock(), slos={})
    with one.store.writing() as file:
        file.executemany(
            "INSERT INTO alerts VALUES (?, ?, NULL, '', ?)",
            [
                (alert.fingerprint, alert.starts, json.dumps(asdict(alert)))
                for alert in (
                    Alert(labels={"alertname": f"A{min(n, 1)}", "campaign": str(n)}, starts=NOW + n)
                    for n in range(1500)
                )
            ],
        )  # fmt: skip
    port = Port(one)
    port.start()
    try:
        plain = told(f"http://{port.address}/metrics")
    finally:
        port.close()
    samples = {
        s.labels["alertname"]: s.value
        for family in prometheus(plain) for s in family.samples
        if s.name == "withstand_alerts_firing"
    }  # fmt: skip
    assert samples == {"A0": 1, "A1": 1499}


def test_a_clock_that_was_wrong_at_first_does_not_put_off_no_data(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = NOW + 365 * 86_400
    watching(tmp_path, clock).step()
    clock.now = NOW
    assert watching(tmp_path, clock).step().fired == ()
    clock.now = NOW + 25 * 3600
    assert "WithstandNoData ticket" in names(watching(tmp_path, clock).step().fired)


def test_a_clock_that_is_set_back_meanwhile_does_not_put_off_no_data(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = NOW + 365 * 86_400
    one = watching(tmp_path, clock)
    one.step()
    clock.now = NOW
    one.step()
    clock.now = NOW + 25 * 3600
    assert "WithstandNoData ticket" in names(one.step().fired)


def test_whoever_does_not_wait_for_an_answer_leaves_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = Port(watching(tmp_path, Clock()))
    port.start()
    try:
        host, _, number = port.address.partition(":")
        for _ in range(5):
            with socket.create_connection((host, int(number))) as asking:
                asking.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
                # Closed with a reset.
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert told(f"http://{port.address}/metrics")
        until = time.monotonic() + 30
        while threads("process_request_thread") and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        port.close()
    assert "Traceback" not in capsys.readouterr().err


def threads(name: str) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if name in one.name]


def test_a_receiver_that_was_taken_out_is_not_waited_for(tmp_path: Path) -> None:
    clock, nowhere = Clock(), {"webhook": "http://127.0.0.1:9"}
    (tmp_path / "c.json").write_text("{")
    settings: dict[str, Any] = {"slos": {}, "coverage": "c.json"}
    one = watching(tmp_path, clock, receivers={"old": nowhere}, **settings)
    one.step()
    assert one.own()["outbox_messages"][1] == {"old": 1}
    (tmp_path / "c.json").unlink()
    clock.now += 10
    one = watching(tmp_path, clock, receivers={"new": nowhere}, **settings)
    one.step()
    assert one.own()["outbox_messages"][1] == {"new": 1}
