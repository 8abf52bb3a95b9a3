"""Permitted attacks: what a scope allows, counts and ends, on a guard with real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from guarding import Model, scores
from processes import withstand
from serving import Running, serving, until
from typer.testing import CliRunner

from withstand._errors import ConfigError, OperationError, WithstandError
from withstand.cli._main import app
from withstand.config import load_operations
from withstand.evidence.log import Place, read
from withstand.guard import Answer, Keys, Secrets
from withstand.monitor import Audit, Observations, Store
from withstand.redteam import (
    SUFFIX,
    Brakes,
    CapError,
    HaltError,
    Impact,
    InputSpentError,
    Purse,
    Run,
    Runs,
    Scope,
    Window,
    coverage,
    lift,
    make_key,
    open_campaign,
    parse_scope,
    read_scope,
    sign,
    signed_scope,
    stop,
    watch,
)
from withstand.respond import GuardClient

KEY = "0" * 64
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)  # A Wednesday.


def scope_of(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    told = {
        "name": "nightly",
        "who": "Ann, who owns the endpoint",
        "environment": "staging",
        "key": KEY,
        "targets": [{"url": "http://127.0.0.1:8100", "models": ["m"]}],
        "attacks": ["Square", "HopSkipJump", "transfer"],
        "regions": [{"norm": "linf", "eps": 0.5}],
        "begins": now - timedelta(days=1),
        "expires": now + timedelta(days=1),
        "caps": {"queries": 500, "per_input": 40, "per_second": 1000},
        "safety": {"guard": False},
    }
    return {**told, **changes}


def parsed(**changes: Any) -> Scope:
    return parse_scope(yaml.safe_dump(scope_of(**changes)).encode(), "scope.yaml")


def brakes(folder: Path, scope: Scope, **more: Any) -> Brakes:
    return Brakes(scope, folder, more.pop("impact", None), **more)


# What a scope is


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"atacks": ["Square"]}, "key 'atacks' is not known, did you mean 'attacks'"),
    "no zone": ({"expires": datetime(2099, 1, 1)}, "expires is .* timezone"),
    "backwards": ({"begins": NOW, "expires": NOW}, "begins is not before expires"),
    "clock": ({"windows": [{"begin": 1320}]}, "windows.0.begin is 1320; give hours"),
    "no cap": ({"caps": {"queries": 0, "per_input": 1, "per_second": 1}}, "caps.queries is 0"),
    "path": ({"targets": [{"url": "http://a/b", "models": ["m"]}]}, "targets.0.url"),
    "blind": ({"environment": "production"}, "in production a guard must tell its figures"),
    "surprise": (
        {"environment": "production", "surprise": True, "safety": {}}, "surprise is for staging",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_broken_scope_is_one_line_that_names_the_key(name: str) -> None:
    changes, words = MISTAKES[name]
    with pytest.raises(OperationError, match=words) as caught:
        parsed(**changes)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = yaml.safe_dump(scope_of()) + "name: other\n"
    with pytest.raises(OperationError, match="key 'name' is there twice"):
        parse_scope(text.encode(), "scope.yaml")


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "scope.yaml"
    path.write_text(yaml.safe_dump(scope_of()))
    public = make_key(tmp_path / "ann.key")
    sign(path, tmp_path / "ann.key")
    return path, {"ann": public}


def test_any_changed_byte_of_a_signed_scope_is_noticed(
    signed: tuple[Path, dict[str, str]],
) -> None:
    path, signers = signed
    assert read_scope(path, signers).signer == "ann"
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(OperationError, match="is not what ann has signed"):
            read_scope(path, signers)
    path.write_bytes(whole + b"\n")
    with pytest.raises(OperationError, match="is not what ann has signed"):
        read_scope(path, signers)


def test_only_who_is_trusted_may_sign(signed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    path, signers = signed
    other = make_key(tmp_path / "eve.key")
    with pytest.raises(OperationError, match=r"not among redteam\.signers"):
        read_scope(path, {"eve": other})
    # The name of a trusted key over another one's signature.
    sign(path, tmp_path / "eve.key")
    beside = path.with_name(path.name + SUFFIX)
    told = json.loads(beside.read_text())
    beside.write_text(json.dumps({**told, "key": signers["ann"]}))
    with pytest.raises(OperationError, match="is not what ann has signed"):
        read_scope(path, signers)
    beside.write_text("{}")
    with pytest.raises(OperationError, match="is no signature"):
        read_scope(path, signers)
    beside.unlink()
    with pytest.raises(OperationError, match="is not signed; run `withstand redteam sign"):
        read_scope(path, signers)


def test_a_private_key_is_its_owners_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    make_key(path)
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(OperationError, match="is there already"):
        make_key(path)


# When


@pytest.mark.parametrize(
    ("window", "day", "clock", "holds"),
    [
        ({}, 4, "12:00", True),
        ({"days": ["wed"]}, 4, "00:00", True),
        ({"days": ["tue", "thu"]}, 4, "12:00", False),
        ({"begin": "09:00", "end": "17:00"}, 4, "16:59", True),
        ({"begin": "09:00", "end": "17:00"}, 4, "17:00", False),
        ({"days": ["wed"], "begin": "22:00", "end": "06:00"}, 4, "23:00", True),
        ({"days": ["wed"], "begin": "22:00", "end": "06:00"}, 5, "05:59", True),
        ({"days": ["wed"], "begin": "22:00", "end": "06:00"}, 4, "05:59", False),
        ({"days": ["sun"], "begin": "22:00", "end": "06:00"}, 2, "01:00", True),
    ],
)
def test_windows_are_of_utc_and_go_on_over_midnight(
    window: dict[str, Any], day: int, clock: str, holds: bool
) -> None:
    hour, minute = map(int, clock.split(":"))
    at = NOW.replace(day=day, hour=hour, minute=minute)
    assert Window(**window).holds(at) is holds


def test_a_scope_ends_to_the_second(tmp_path: Path) -> None:
    scope = parsed(begins=NOW, expires=NOW + timedelta(hours=1))
    begin, end = NOW.timestamp(), NOW.timestamp() + 3600
    assert "begins at" in scope.closed(begin - 1)
    assert scope.closed(begin) == scope.closed(end - 1) == ""
    assert "expired" in scope.closed(end)
    clock = [end - 1]
    held = brakes(tmp_path, scope, wall=lambda: clock[0])
    held.check()
    clock[0] = end
    with pytest.raises(HaltError, match="expired"):
        held.check()


# How much


def test_caps_hold_over_restarts_and_for_each_input(tmp_path: Path) -> None:
    caps = parsed(caps={"queries": 500, "per_input": 33, "per_second": 1}).caps
    rng, sent = np.random.default_rng(0), {"a": 0, "b": 0, "c": 0}
    purse = Purse(Store(tmp_path), "digest", caps)
    spent_up = False
    for _ in range(400):
        name, queries = str(rng.choice(list(sent))), int(rng.integers(1, 6))
        try:
            purse.take("run", name, queries)
            sent[name] += queries
        except InputSpentError:
            spent_up = True
        if rng.random() < 0.05:
            # As if it had been killed: nothing is given back.
            purse = Purse(Store(tmp_path), "digest", caps)
        assert purse.spent("run", name) >= sent[name]
    assert spent_up
    assert all(count <= 33 for count in sent.values())

    def go_on() -> None:
        for number in range(100):
            purse.take("other run", str(number), 10)

    with pytest.raises(CapError, match="cap is 500"):
        go_on()
    purse.settle()
    assert purse.spent() <= 500
    # A scope that was signed anew counts anew.
    Purse(Store(tmp_path), "another", caps).take("run", "a", 1)


def test_what_was_not_sent_is_given_back(tmp_path: Path) -> None:
    caps = parsed(caps={"queries": 50, "per_input": 50, "per_second": 1}).caps
    purse = Purse(Store(tmp_path), "digest", caps)
    for number in range(17):
        purse.take("run", str(number), 2)
        assert purse.spent() == 2 * (number + 1)
    purse.settle()
    purse.settle()
    assert Purse(Store(tmp_path), "digest", caps).spent() == 34
    purse.take("run", "x", 16)
    with pytest.raises(CapError):
        purse.take("run", "x", 1)


def test_queries_are_evenly_spaced_and_the_switch_ends_a_pause(tmp_path: Path) -> None:
    now, naps = [0.0], []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    scope = parsed(caps={"queries": 9, "per_input": 9, "per_second": 0.5})
    held = brakes(tmp_path, scope, clock=lambda: now[0], sleep=sleep)
    held.wait(1)
    held.wait(2)
    assert now[0] == pytest.approx(2)
    held.wait(1)
    assert now[0] == pytest.approx(6)
    assert max(naps) <= 0.1
    begun = len(naps)
    real = sleep

    def pressed(seconds: float) -> None:
        real(seconds)
        if len(naps) == begun + 3:
            stop(Store(tmp_path), who="ann", why="enough")

    held._sleep = pressed
    with pytest.raises(HaltError, match=r"redteam\.stop is there"):
        held.wait(1)
    assert len(naps) == begun + 3
    assert lift(Store(tmp_path), who="ann", why="on") is True
    assert lift(Store(tmp_path), who="ann", why="on") is False
    assert [act.action for act in Audit(Store(tmp_path)).last()] == ["redteam lift", "redteam stop"]


# Whether users feel it


class Figures:
    """A guard that tells what it is told to tell."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {"killed": False, "draining": False, "evidence": "kept"}
        self.good = self.bad = 0
        self.added = self.lag = 0.0
        self.silent = False

    def status(self) -> dict[str, Any]:
        if self.silent:
            raise OperationError("no guard answers")
        return self.told

    def metrics(self) -> str:
        return (
            f'withstand_requests_total{{model="m",tenant="t",status="200"}} {self.good}\n'
            f'withstand_requests_total{{model="m",tenant="t",status="502"}} {self.bad}\n'
            f"withstand_added_latency_seconds_sum {self.added}\n"
            f"withstand_added_latency_seconds_count {self.good + self.bad}\n"
            f"withstand_loop_lag_seconds {self.lag}\n"
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"good": 999, "bad": 1}, ""),
        ({"good": 95, "bad": 5}, "5.0% of the guard's last 100 requests failed"),
        ({"good": 5, "bad": 5}, ""),
        ({"good": 100, "added": 30.0}, "adds 0.30 s"),
        ({"lag": 0.6}, "loop is 0.60 s late"),
        ({"told": {"killed": True}}, "switched off"),
        ({"told": {"evidence": "failing"}}, "cannot write evidence"),
        ({"told": {"draining": True}}, "is ending"),
        ({"silent": True}, "does not tell how it is"),
    ],
)
def test_what_users_feel_ends_the_campaign(change: dict[str, Any], words: str) -> None:
    guard, now = Figures(), [0.0]
    impact = Impact(guard, parsed(safety={}).safety, clock=lambda: now[0])
    assert impact.why() == ""
    for name, value in change.items():
        setattr(guard, name, value)
    assert impact.why() == "", "it looks about once a second"
    now[0] = 1.1
    found = impact.why()
    assert words in found
    assert bool(found) == bool(words)


def test_our_own_failures_and_slow_answers_end_it_too(tmp_path: Path) -> None:
    scope = parsed(safety={"guard": False, "failures": 3, "answer": 0.5})
    held = brakes(tmp_path, scope)
    for seconds in (None, None, 0.1, None, None):
        held.answered(seconds)
    held.check()
    held.answered(None)
    with pytest.raises(HaltError, match="3 queries one after the other were not answered"):
        held.check()
    slow = brakes(tmp_path, scope)
    for _ in range(9):
        slow.answered(0.6)
    slow.check()
    slow.answered(0.6)
    with pytest.raises(HaltError, match=r"took 0\.60 s on average"):
        slow.check()


# On an endpoint


class Endpoint:
    """A guard in front of a linear model, a red team with a key, and a signed scope."""

    def __init__(self, running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running, self.folder = running, folder
        secrets = Secrets(folder / running.config["secrets"])
        keys = Keys(folder / "keys.json", secrets.get("pepper"))
        monkeypatch.setenv("REDTEAM_KEY", keys.make("red"))
        self.key = next(one.id for one in keys if one.tenant == "red")
        running.service.look_after()
        rng = np.random.default_rng(3)
        x = rng.random((30, 4)).astype(np.float32)
        np.savez(folder / "data.npz", x=x, y=scores(x).argmax(1))
        self.public = make_key(folder / "ann.key")
        self.permit()

    def permit(self, **changes: Any) -> None:
        url = f"http://127.0.0.1:{self.running.port}"
        told = scope_of(**{"key": self.key, "targets": [{"url": url, "models": ["m"]}], **changes})
        (self.folder / "scope.yaml").write_text(yaml.safe_dump(told))
        sign(self.folder / "scope.yaml", self.folder / "ann.key")

    def write(self, **changes: Any) -> None:
        """The configuration of the red team, beside the guard's."""
        redteam = {
            "signers": {"ann": self.public},
            "target": {
                "kind": "http", "url": f"http://127.0.0.1:{self.running.port}", "access": "scores",
                "http": {"name": "m", "input": "x", "headers": {"x-api-key": "$REDTEAM_KEY"}},
            },
            "data": {"kind": "npz", "path": "data.npz", "layout": "none"},
            "inputs": 6, "benign": 4, "eps": 0.5,
            "attacks": [{"name": "Square", "options": {"queries": 25}}],
            **changes,
        }  # fmt: skip
        config = {**self.running.config, "admin": f"127.0.0.1:{self.running.admin_port}"}
        told = {"guard": config, "redteam": redteam, "monitor": {"folder": "monitor"}}
        (self.folder / "redteam.yaml").write_text(yaml.safe_dump(told))

    def open(self, **more: Any) -> Any:
        path = self.folder / "redteam.yaml"
        return open_campaign(path, GuardClient.from_file(path), **more)

    async def attack(self, **more: Any) -> list[Run]:
        campaign = self.open(**more)
        found: list[Run] = await asyncio.to_thread(campaign.run)
        return found

    @property
    def store(self) -> Store:
        return Store(self.folder / "monitor")

    def records(self) -> list[dict[str, Any]]:
        return [
            place.record.content
            for place in read(self.folder / "evidence")
            if isinstance(place, Place) and place.record.kind == "decision"
        ]


def on_endpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Endpoint], Any],
    model: Any = None, **config: Any,
) -> Any:  # fmt: skip
    async def begin(running: Running) -> Any:
        endpoint = Endpoint(running, folder, monkeypatch)
        endpoint.write()
        return await work(endpoint)

    Keys(folder / "keys.json", Secrets(folder / "secrets").get("pepper")).make("somebody")
    told = {
        "open": False, "keys": "keys.json", "secrets": "secrets", "models": {"m": {}},
        "evidence": {"folder": "evidence", "inputs": "all"}, **config,
    }  # fmt: skip
    return serving(folder, begin, model=model, **told)


def test_a_campaign_tells_the_monitor_what_the_model_and_the_guard_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        (run,) = await endpoint.attack()
        assert (run.state, run.tried, run.who) == ("done", 6, "ann")
        assert run.fooled > 0
        records = [one for one in endpoint.records() if one.get("experiment") == run.id]
        # Each query is in the evidence, was counted, and says which input it was about.
        assert len(records) == run.queries
        assert {one["probe"].partition(".")[0] for one in records} == {
            *map(str, range(6)), *(f"b{i}" for i in range(6, 10)),
        }  # fmt: skip
        seen = {sli: Observations(endpoint.store).of(sli) for sli in ("M1", "M2", "M3")}
        assert [len(seen[sli]) for sli in ("M1", "M2", "M3")] == [6, 6, 4]
        assert sum(bool(one.bad) for one in seen["M1"]) == run.fooled
        # This guard has no sensor.
        assert run.detected == 0
        assert all(one.bad for one in seen["M2"])
        assert not any(one.bad for one in seen["M3"])
        (row,) = coverage(Runs(endpoint.store).all())
        assert (row.attack, row.norm, row.eps, row.tried) == ("Square", "linf", 0.5, 6)
        assert {"AML.T0043.001", "NISTAML.025", "ML01:2023"} <= {one.id for one in row.techniques}
        # The model really is wrong there: the oracle is the linear model itself.
        x = np.load(tmp_path / "data.npz")["x"][:6]
        assert sum(_can_be_fooled(row, 0.5) for row in x) >= run.fooled

    on_endpoint(tmp_path, monkeypatch, work)


def _can_be_fooled(x: np.ndarray[Any, Any], eps: float) -> bool:
    """Whether a linear model has a corner of the box where another class wins."""
    from guarding import WEIGHTS

    own = int((x @ WEIGHTS).argmax())
    for other in range(3):
        slope = WEIGHTS[:, other] - WEIGHTS[:, own]
        corner = np.clip(x + eps * np.sign(slope), 0, 1)
        if other != own and (corner @ slope) > 0:
            return True
    return False


def test_what_the_guard_flags_is_detected_and_clean_inputs_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        (run,) = await endpoint.attack()
        assert run.detected == run.tried == 6
        assert not any(one.bad for one in Observations(endpoint.store).of("M2"))
        assert [one.bad for one in Observations(endpoint.store).of("M3")] == [False] * 3 + [True]

    # Whoever has had three answers is flagged from then on, and the clean inputs come first.
    on_endpoint(tmp_path, monkeypatch, work, answers={"most": 3, "action": "tag"})


def test_examples_of_a_surrogate_are_shown_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "surrogate.py").write_text(
        "import torch\nfrom guarding import WEIGHTS\n\n\ndef build():\n"
        "    net = torch.nn.Linear(4, 3, bias=False)\n"
        "    net.weight.data = torch.tensor(WEIGHTS.T, dtype=torch.float32)\n    return net\n"
    )

    async def work(endpoint: Endpoint) -> None:
        surrogate = {"kind": "torch", "factory": "surrogate.py:build"}
        attacks = [{"name": "transfer"}]
        endpoint.write(attacks=attacks, surrogates=[surrogate], benign=0, eps=0.3)
        (run,) = await endpoint.attack()
        # The surrogate is the model itself, and of a linear one the best corner is known.
        x = np.load(tmp_path / "data.npz")["x"][:6]
        assert run.fooled == sum(_can_be_fooled(row, 0.3) for row in x) > 0
        assert run.queries == 12
        (row,) = coverage([run])
        assert "AML.T0043.002" in {one.id for one in row.techniques}

    on_endpoint(tmp_path, monkeypatch, work)


def test_without_evidence_nothing_is_said_of_detection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        (run,) = await endpoint.attack()
        assert run.tried == 6
        assert not Observations(endpoint.store).of("M2")
        assert not Observations(endpoint.store).of("M3")

    on_endpoint(tmp_path, monkeypatch, work, evidence=None)


OUTSIDE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "address": ({"targets": [{"url": "http://127.0.0.1:1", "models": ["m"]}]}, {}, "is not in the"),
    "model": ({"models": ["other"]}, {}, "is not in the scope"),
    "attack": ({"attacks": ["NES"]}, {}, "attack Square is not in the scope, which has NES"),
    "radius": ({}, {"eps": 0.6}, "linf 0.6 is not in the scope, which reaches linf 0.5"),
    "norm": ({}, {"norm": "l2", "eps": 0.1}, "l2 0.1 is not in the scope"),
    "hours": ({"windows": [{"begin": "00:00", "end": "00:00"}]}, {}, "outside the windows"),
    "key": ({"key": KEY}, {}, "API key of redteam.target is not the scope's"),
    "gradients": ({"attacks": ["APGD"]}, {"attacks": [{"name": "APGD"}]}, "one of BoundaryAttack"),
    "options": ({}, {"attacks": [{"name": "Square", "options": {"loops": 2}}]}, "see its settings"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_the_scope_does_not_permit_is_refused_before_the_first_query(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    permitted, asked, words = OUTSIDE[name]

    async def work(endpoint: Endpoint) -> None:
        changes = dict(permitted)
        if "models" in changes:
            url = f"http://127.0.0.1:{endpoint.running.port}"
            changes["targets"] = [{"url": url, "models": changes.pop("models")}]
        if "windows" in changes:
            # Hours that are over, whenever this runs.
            hour = (datetime.now(UTC) + timedelta(hours=2)).hour
            changes["windows"] = [{"begin": f"{hour:02}:00", "end": f"{hour:02}:30"}]
        endpoint.permit(**changes)
        endpoint.write(**asked)
        with pytest.raises((OperationError, ConfigError), match=words) as caught:
            await endpoint.attack()
        assert "\n" not in str(caught.value)
        assert not endpoint.records()
        assert Runs(endpoint.store).all() == []

    on_endpoint(tmp_path, monkeypatch, work)


def test_no_attack_gets_beyond_the_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(endpoint: Endpoint) -> None:
        endpoint.permit(caps={"queries": 50, "per_input": 9, "per_second": 1000})
        endpoint.write(inputs=20, benign=0, eps=0.01, attacks=[{"name": "HopSkipJump"}])
        (run,) = await endpoint.attack()
        assert run.state == "stopped"
        assert "the scope's cap is 50" in run.stopped
        by_input: dict[str, int] = {}
        for one in endpoint.records():
            name = one["probe"].partition(".")[0]
            by_input[name] = by_input.get(name, 0) + one["tensors"][0][2][0]
        assert 40 <= sum(by_input.values()) <= 50
        assert max(by_input.values()) <= 9
        # Started again, there is nothing left.
        (again,) = await endpoint.attack()
        assert again.state == "stopped"
        assert sum(one["tensors"][0][2][0] for one in endpoint.records()) <= 50

    on_endpoint(tmp_path, monkeypatch, work)


class Slow(Model):
    """Its answers take a while."""

    def __init__(self) -> None:
        super().__init__(pause=0.02)


def _told(endpoint: Endpoint) -> dict[str, Any]:
    return {"WITHSTAND_NOTHING": "", "REDTEAM_KEY": os.environ["REDTEAM_KEY"]}


def test_killed_in_the_middle_it_goes_on_and_sends_no_query_twice_uncounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        endpoint.permit(caps={"queries": 200, "per_input": 26, "per_second": 1000})
        words = ("redteam", "run", "--quiet", "--config", "redteam.yaml")
        endpoint.write(eps=0.02, benign=0, inputs=5)
        process = await asyncio.to_thread(_begun, tmp_path, *words)
        await until(lambda: len(endpoint.records()) > 60)
        process.kill()
        await asyncio.to_thread(process.join)
        (cut,) = Runs(endpoint.store).all()
        assert cut.state == "running"
        assert 1 <= cut.tried < 5
        found = await asyncio.to_thread(
            withstand, *words, folder=tmp_path, environment=_told(endpoint)
        )
        assert found.returncode == 0, found.stderr
        (run,) = Runs(endpoint.store).all()
        assert (run.id, run.state) == (cut.id, "done")
        # One that was under way had only what was left, which says nothing of the model.
        assert 4 <= run.tried <= 5
        counts: dict[str, int] = {}
        for one in endpoint.records():
            name = one["probe"].partition(".")[0]
            counts[name] = counts.get(name, 0) + 1
        assert max(counts.values()) <= 26
        # Some may have been counted and not sent when it was killed.
        assert sum(counts.values()) <= run.queries <= sum(counts.values()) + 20
        assert len(Observations(endpoint.store).of("M1")) == run.tried

    on_endpoint(tmp_path, monkeypatch, work, model=Slow())


def _begun(folder: Path, *words: str) -> Any:
    from processes import _CONTEXT, _child, _command

    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    process = _CONTEXT.Process(
        target=_child, args=(_command, words, folder, dict(os.environ), str(scratch))
    )
    process.start()
    return process


@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("stop", marks=pytest.mark.slow)])
def test_whoever_wants_it_to_end_ends_it_before_the_next_query(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Slow()

    async def work(endpoint: Endpoint) -> None:
        endpoint.write(eps=0.01, benign=0, inputs=20)
        words = ("redteam", "run", "--quiet", "--config", "redteam.yaml")
        process = await asyncio.to_thread(_begun, tmp_path, *words)
        await until(lambda: len(endpoint.records()) > 5)
        # What the model was asked, since evidence is written a while after it.
        if how == "SIGTERM":
            process.terminate()
        else:
            stop(endpoint.store, who="ann", why="enough")
        sent = len(model.seen)
        await asyncio.to_thread(process.join)
        # One was under way, and had not come to the model.
        assert len(model.seen) <= sent + 1
        assert process.exitcode == 3
        (run,) = Runs(endpoint.store).all()
        assert run.state == "stopped"
        assert run.stopped
        if how == "stop":
            with pytest.raises(HaltError, match="redteam stop --lift"):
                await endpoint.attack()

    on_endpoint(tmp_path, monkeypatch, work, model=model)


def test_a_guard_that_is_switched_off_ends_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        endpoint.permit(safety={}, environment="production")
        endpoint.write(eps=0.01, benign=0, inputs=20)
        going = asyncio.ensure_future(endpoint.attack())
        await until(lambda: len(endpoint.records()) > 5)
        endpoint.running.service.switch(True, "ann", "trouble")
        at = time.monotonic()
        (run,) = await going
        assert "the guard's inspection is switched off" in run.stopped
        assert time.monotonic() - at < 5

    on_endpoint(tmp_path, monkeypatch, work, model=Slow())


def test_a_client_that_the_guard_refuses_is_not_fooling_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        endpoint.write(eps=0.01, benign=0, inputs=20)
        going = asyncio.ensure_future(endpoint.attack())
        await until(lambda: len(endpoint.records()) > 30)
        await endpoint.running.change(
            "/mitigate", id="t", action="block", key=endpoint.key, seconds="60", who="a", why="b"
        )
        (run,) = await going
        assert "the guard refuses the red team's key" in run.stopped
        assert run.state == "stopped"
        # The input that was under way when it was blocked withstood, and was noticed.
        assert run.fooled == 0
        assert run.detected == 1
        assert [one.bad for one in Observations(endpoint.store).of("M1")] == [False] * run.tried

    on_endpoint(tmp_path, monkeypatch, work, model=Slow())


def test_a_second_campaign_on_the_same_store_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        endpoint.write(eps=0.01, benign=0, inputs=3)
        going = asyncio.ensure_future(endpoint.attack())
        await until(lambda: len(endpoint.records()) > 5)
        with pytest.raises(OperationError, match="a campaign is under way"):
            await endpoint.attack()
        await going

    on_endpoint(tmp_path, monkeypatch, work, model=Slow())


class Down(Model):
    """A server that fails after a while."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        self.asked += method == "POST"
        if self.asked > 20:
            return Answer(500, [(b"content-type", b"application/json")], b"{}")
        return await super().ask(method, target, headers, body)


def test_a_server_that_fails_is_asked_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Down()

    async def work(endpoint: Endpoint) -> None:
        endpoint.write(eps=0.01, benign=0, inputs=20)
        (run,) = await endpoint.attack()
        assert "answered 500" in run.stopped
        assert model.asked == 23

    on_endpoint(tmp_path, monkeypatch, work, model=model)


def test_both_arms_of_a_canary_are_shown_the_same_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(endpoint: Endpoint) -> None:
        running = endpoint.running
        running.rewrite(canary={"upstream": running.config["upstream"], "version": "2"})
        await running.service.reload()
        endpoint.permit(safety={})
        endpoint.write(inputs=3, benign=0)
        with pytest.raises(OperationError, match=r"no arm 'control'|start it before"):
            await _stopped(endpoint)
        started = await running.change("/canary/start", model="m", who="a", why="b", id="1")
        assert started.status == 200
        control, canary = await endpoint.attack(arms=True)
        assert [run.id.rpartition("-")[2] for run in (control, canary)] == ["control", "canary"]
        # The same model behind both arms is fooled by the same inputs.
        assert control.tried == canary.tried == 3
        assert control.fooled == canary.fooled > 0
        told = (await running.admin("/canary")).json["models"]["m"]
        assert told["compared"]["fooled"]["pairs"] == 3
        assert told["arms"]["canary"]["fooled"]["happened"] == canary.fooled
        # What a canary shows is not what serves the clients.
        seen = Observations(endpoint.store).of("M1")
        assert sorted(one.model for one in seen) == ["m"] * 3 + ["m@canary"] * 3
        by_arm = {one["arm"] for one in endpoint.records() if one.get("experiment") == canary.id}
        assert by_arm == {"canary"}

    async def _stopped(endpoint: Endpoint) -> None:
        runs = await endpoint.attack(arms=True)
        raise OperationError(runs[0].stopped)

    on_endpoint(tmp_path, monkeypatch, work)


def test_a_watch_begins_one_campaign_after_the_other_and_tells_why_it_cannot(
    tmp_path: Path,
) -> None:
    store, now = Store(tmp_path), [1000.0]
    said: list[str] = []
    runs = Runs(store)

    class Once:
        """A campaign that takes a while, or may not begin."""

        def run(self) -> list[Run]:
            if 1700 < now[0] < 2500:
                raise OperationError("outside the windows")
            new = Run(id=f"r{now[0]:g}", target="t", attack="a", began=now[0], state="done")
            runs.put(new)
            now[0] += 30
            return [new]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    found = watch(
        Once, runs, 500.0, ended=lambda: now[0] > 3600, told=said.append,  # type: ignore[arg-type]
        sleep=sleep, wall=lambda: now[0],
    )  # fmt: skip
    began = [run.began for run in found]
    assert began[0] == 1000
    assert all(later - earlier >= 500 for earlier, later in pairwise(began))
    assert not any(1700 < one < 2500 for one in began)
    # As soon as it may again, and not told each second why it could not.
    assert any(2500 <= one <= 2501 for one in began)
    assert said == ["outside the windows"]


@pytest.mark.parametrize("text", ["garbage{ 1 2 3", "withstand_requests_total 1\n"])
def test_figures_that_cannot_be_read_end_a_campaign(text: str) -> None:
    class Odd:
        def status(self) -> dict[str, Any]:
            return {}

        def metrics(self) -> str:
            return text

    assert "no form that is known" in Impact(Odd(), parsed(safety={}).safety).why()


def test_a_mistake_in_the_configuration_ends_no_watch_that_has_run(tmp_path: Path) -> None:
    runs, now, wrong = Runs(Store(tmp_path)), [1000.0], [1500.0, 1800.0]
    said: list[str] = []

    class Once:
        """A campaign whose file is being written for a while."""

        def run(self) -> list[Run]:
            if wrong[0] <= now[0] < wrong[1]:
                raise ConfigError("half a file")
            new = Run(id=f"r{now[0]:g}", target="t", attack="a", began=now[0], state="done")
            runs.put(new)
            return [new]

    def sleep(seconds: float) -> None:
        now[0] += 10 * seconds

    def watched() -> list[Run]:
        return watch(
            Once, runs, 500.0, ended=lambda: now[0] > 2000, told=said.append,  # type: ignore[arg-type]
            sleep=sleep, wall=lambda: now[0],
        )  # fmt: skip

    assert [run.began for run in watched()] == [1000, 1800]
    assert said == ["half a file"]
    now[0], wrong[:] = 0.0, [0.0, 5000.0]
    runs = Runs(Store(tmp_path / "new"))
    with pytest.raises(ConfigError, match="half a file"):
        watched()


# The command line


def test_the_verbs_of_a_campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*words: str, code: int = 0) -> str:
        found = CliRunner().invoke(app, ["redteam", *words])
        broken = isinstance(found.exception, WithstandError)
        assert (2 if broken else found.exit_code) == code, found.output
        return str(found.exception) if broken else found.output

    public = said("keygen", "--output", "ann.key").splitlines()[0]
    told = {"redteam": {"signers": {"ann": public}}, "monitor": {"folder": "monitor"}}
    (tmp_path / "withstand.yaml").write_text(yaml.safe_dump(told))
    (tmp_path / "scope.yaml").write_text(yaml.safe_dump(scope_of()))
    assert "is not signed" in said("show", code=2)
    said("sign", "--key", "ann.key")
    assert '"ann"' in said("show")
    assert signed_scope(tmp_path / "withstand.yaml", load_operations(tmp_path / "withstand.yaml"))
    over = scope_of(expires=datetime.now(UTC) - timedelta(hours=1))
    (tmp_path / "scope.yaml").write_text(yaml.safe_dump(over))
    said("sign", "--key", "ann.key")
    assert "the scope expired" in said("show", code=1)
    assert "redteam.target is missing" in said("run", code=2)
    assert said("coverage") == "nothing was tried\n"
    said("stop", "--why", "enough")
    assert "campaigns may begin" in said("stop", "--lift", "--why", "on")
    Runs(Store(tmp_path / "monitor")).put(
        Run(id="a", target="t", attack="Square linf 0.5", began=1.0, tried=4, fooled=2)
    )
    assert "fooled 2 of 4 (15% to 85%)" in said("runs")
    assert "AML.T0043.001" in said("coverage")
