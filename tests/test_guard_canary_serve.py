"""A guard that serves with a canary: its endpoints, records and figures, reloads and faults."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarding import Model, scores, v2_answer
from serving import Running, model_server, request, serving, until
from typer.testing import CliRunner

from withstand.cli._main import app
from withstand.evidence.log import Break, read
from withstand.guard import Answer, Experiment, Experiments, guard_from
from withstand.guard.access._access import NOBODY
from withstand.guard.wire import Limits, read_v2

QUICK: dict[str, Any] = {"step_seconds": 0.01, "patience_seconds": 3600}


class Other(Model):
    """The new version: it has a header of its own, and fails when it is told to."""

    failing = False

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        answer = await super().ask(method, target, headers, body)
        if self.failing and method == "POST":
            return Answer(500, answer.headers, b"{}")
        return answer._replace(headers=[*answer.headers, (b"x-version", b"new")])


async def with_canary(guard: Running, port: int, **keys: Any) -> None:
    canary = {"upstream": f"http://127.0.0.1:{port}", "version": "2", "weights": "abc"}
    guard.rewrite(canary={**canary, **QUICK, **keys})
    assert (await guard.change("/reload")).status == 200


async def inputs(guard: Running, n: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [await guard.infer(rng.random((1, 4)).round(6).tolist()) for _ in range(n)]


def served(model: Model) -> int:
    return sum(method == "POST" for method, *_ in model.seen)


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [
        dict(place.record.content)
        for place in read(folder)
        if not isinstance(place, Break) and place.record.kind == kind
    ]


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_it_is_let_in_step_by_step_and_all_of_it_is_told(tmp_path: Path, mode: str) -> None:
    stable, new = Model(), Other()

    async def work(guard: Running) -> None:
        assert (await guard.admin("/canary")).json == {"models": {}}
        async with model_server(new) as port:
            compare = {"fooled": {}, "errors": {"least": 9, "more": 0.9, "most": 1}}
            await with_canary(guard, port, steps=[30, 50, 100], compare=compare)
            (told,) = (await guard.admin("/canary")).json["models"].values()
            assert (told["state"], told["weight"], told["verdict"]) == ("off", 0, "")
            assert b"withstand_canary_verdict{" not in (await guard.admin("/metrics")).body
            await inputs(guard, 20)
            assert served(new) == 0
            answer = await guard.change("/canary/start", who="ann", why="a try", id="1")
            assert answer.json == {"model": "*", "new": True, "state": "running", "weight": 30}
            again = await guard.change("/canary/start", who="ann", why="a try", id="1")
            assert again.json["new"] is False
            answers = await inputs(guard, 60)
            assert {one.status for one in answers} == {200}
            share = sum(one.headers.get("x-version") == "new" for one in answers) / 60
            assert 0.1 < share < 0.55
            same = await inputs(guard, 60)
            assert [one.headers.get("x-version") for one in same] == [
                one.headers.get("x-version") for one in answers
            ]
            guard.service.canaries.consider()
            (told,) = (await guard.admin("/canary")).json["models"].values()
            assert (told["state"], told["verdict"]) == ("running", "inconclusive")
            assert told["compared"]["errors"]["canary"]["n"] >= 9
            assert told["compared"]["fooled"]["canary"]["value"] is None
            # What is passed on unread is read beside, too late to be compared.
            labels = sum(told["arms"]["control"]["labels"].values())
            assert (labels > 0) == (mode != "observe")
            outcomes = {"tried": "400", "both": "20", "canary": "0", "control": "0"}
            told_now = await guard.change("/canary/outcomes", arm="pairs", source="a", **outcomes)
            assert told_now.json["new"] is True
            again = await guard.change("/canary/outcomes", arm="pairs", source="a", **outcomes)
            assert again.json["new"] is False
            for turn in range(20):
                await inputs(guard, 25, seed=turn)
                guard.service.canaries.consider()
                if guard.counted("canary_weight_ratio", model="") == 1:
                    break
            (told,) = (await guard.admin("/canary")).json["models"].values()
            assert (told["state"], told["weight"], told["verdict"]) == ("promoted", 100, "pass")
            before = served(stable)
            assert {one.headers.get("x-version") for one in await inputs(guard, 20)} == {"new"}
            assert served(stable) == before
            text = (await guard.admin("/metrics")).body.decode()
            assert 'withstand_canary_state{model="",state="promoted"} 1.0' in text
            assert 'withstand_canary_weight_ratio{model=""} 1.0' in text
            assert 'withstand_canary_verdict{model="",verdict="pass"} 1.0' in text
            assert 'withstand_canary_verdict{model="",verdict="fail"} 0.0' in text
            assert guard.counted("arm_requests_total", model="", arm="canary") > 30
            assert 'withstand_arm_latency_seconds_count{arm="control",model=""}' in text
            answer = await guard.change("/canary/rollback", who="bob", why="regret", id="2")
            assert (answer.json["state"], answer.json["weight"]) == ("rolled_back", 0)
            before = served(new)
            assert {one.headers.get("x-version") for one in await inputs(guard, 20)} == {None}
            assert served(new) == before

    serving(tmp_path, work, model=stable, mode=mode, version="1",
            evidence={"folder": "evidence", "inputs": "none"})  # fmt: skip
    decided = records(tmp_path / "evidence", "decision")
    arms = Counter(one.get("arm") for one in decided)
    assert set(arms) == {"stable", "control", "canary"}
    assert {(one["version"], one["weights"]) for one in decided if one.get("arm") == "canary"} == {
        ("2", "abc")
    }
    assert {one["version"] for one in decided if one.get("arm") != "canary"} == {"1"}
    kept = records(tmp_path / "evidence", "canary")
    assert [one["state"] for one in kept] == [
        "running", "running", "promoted", "rolled_back",
    ]  # fmt: skip
    assert [(one["who"], one["weight"]) for one in kept] == [
        ("ann", 30), ("guard", 50), ("guard", 100), ("bob", 0),
    ]  # fmt: skip


def test_a_canary_that_goes_down_is_rolled_back_by_itself(tmp_path: Path) -> None:
    stable, new = Model(), Other()

    async def work(guard: Running) -> None:
        async with model_server(new) as port:
            await with_canary(guard, port, steps=[50, 100], failures=5)
            await guard.change("/canary/start", who="ann", why="")
            assert {one.status for one in await inputs(guard, 20)} == {200}
            new.failing = True
            statuses = Counter(one.status for one in await inputs(guard, 60, seed=1))
        (told,) = (await guard.admin("/canary")).json["models"].values()
        assert (told["state"], told["why"]) == ("rolled_back", "5 failures of the canary in a row")
        assert statuses == {200: 55, 500: 5}

    serving(tmp_path, work, model=stable)


def test_a_reload_keeps_the_rollout_and_another_version_begins_anew(tmp_path: Path) -> None:
    async def state(guard: Running) -> tuple[str, float]:
        (told,) = (await guard.admin("/canary")).json["models"].values()
        return told["state"], told["weight"]

    async def work(guard: Running) -> None:
        async with model_server(Other()) as port:
            await with_canary(guard, port)
            await guard.change("/canary/start", who="ann", why="")
            await inputs(guard, 60)
            line = guard.service.guard.lines[""]
            seen = line.canary.rollout.arms["stable"].requests
            assert seen > 0
            await with_canary(guard, port, steps=[1, 50, 100], alpha=0.01)
            assert await state(guard) == ("running", 5)
            canary = guard.service.guard.lines[""].canary
            assert canary.rollout is line.canary.rollout
            assert canary.settings.steps == (1, 50, 100)
            await with_canary(guard, port, version="3")
            assert await state(guard) == ("off", 0)
            await guard.change("/canary/start", who="ann", why="")
            assert await state(guard) == ("running", 5)
            # One that comes back begins anew, too.
            await with_canary(guard, port, version="2")
            assert await state(guard) == ("off", 0)
            # What the old guard still does, nobody takes for the new one's.
            line.canary.rollout._back("old", "late")
            assert await state(guard) == ("off", 0)
            guard.rewrite(canary={"upstream": f"http://127.0.0.1:{port}", "steps": [50, 20]})
            refused = await guard.change("/reload")
            assert "guard.canary.steps are 50, 20; give at most 20 rising" in refused.json["error"]

    serving(tmp_path, work)


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        refused = await guard.change("/canary/start", model="m", who="ann", why="")
        assert (refused.status, refused.json["error"]) == (
            409, "model 'm' has no canary; those that have one: (none)",
        )  # fmt: skip
        async with model_server(Other()) as port:
            await with_canary(guard, port)
            for path, told, words in (
                ("/canary/freeze", {}, "the canary is off; this is for one that is running"),
                ("/canary/start", {"id": "a b"}, "id is missing or odd"),
                ("/canary/outcomes", {"arm": "canary"}, "source is missing or odd"),
                ("/canary/outcomes", {"arm": "x", "source": "a"}, "give canary, control or pairs"),
                ("/canary/outcomes", {"arm": "canary", "source": "a", "tried": "-1"}, "tried is"),
                ("/canary/outcomes", {"arm": "pairs", "source": "a", "tried": "1", "both": "1",
                                      "canary": "1", "control": "0"}, "2 of 1 pairs cannot be"),
                ("/canary/outcomes", {"arm": "canary", "source": "a", "tried": "3",
                                      "fooled": "2"}, "start it before it is probed"),
            ):  # fmt: skip
                answer = await guard.change(path, **told)
                assert (answer.status, words in answer.json["error"]) == (409, True), answer.json
            for verb in ("start", "rollback", "freeze", "resume", "promote", "outcomes"):
                assert (await guard.admin(f"/canary/{verb}", "POST")).status == 401
                assert (await guard.admin(f"/canary/{verb}")).status == 405
            assert (await guard.send(b"GET /canary HTTP/1.1\r\nhost: a\r\n\r\n")).status == 404

    serving(tmp_path, work)


def test_a_pass_chooses_the_arm_and_its_requests_are_no_traffic(tmp_path: Path) -> None:
    new = Other()

    async def work(guard: Running) -> None:
        experiments = Experiments(guard.service.secrets.get("experiment"))

        def passed(arm: str) -> dict[str, str]:
            told = Experiment(id="x", key=NOBODY.id, until=4e9, arm=arm)
            return {"x_withstand_experiment": experiments.sign(told)}

        assert (await guard.infer(**passed("canary"))).status == 409
        async with model_server(new) as port:
            await with_canary(guard, port, steps=[1, 100])
            assert (await guard.infer(**passed("canary"))).status == 409
            await guard.change("/canary/start", who="ann", why="")
            for arm, version in (("canary", "new"), ("control", None)):
                answer = await guard.infer(**passed(arm))
                assert answer.headers.get("x-withstand-arm") == arm
                assert answer.headers.get("x-version") == version
            # Nobody else is told.
            answer = await guard.infer()
            assert "x-withstand-arm" not in answer.headers
            (told,) = (await guard.admin("/canary")).json["models"].values()
            assert sum(arm["requests"] for arm in told["arms"].values()) == 1
            await guard.change("/canary/rollback", who="ann", why="")
            asked = served(new)
            assert (await guard.infer(**passed("canary"))).status == 409
            assert served(new) == asked

    serving(tmp_path, work, mode="observe")
    serving(tmp_path, work, mode="enforce")


def test_what_is_ordered_goes_before_the_canary(tmp_path: Path) -> None:
    away = Model()

    async def work(guard: Running) -> None:
        async with model_server(Other()) as port, model_server(away) as other:
            guard.rewrite(reroute={"upstream": f"http://127.0.0.1:{other}", "share": 1})
            await with_canary(guard, port, steps=[99, 100])
            await guard.change("/canary/start", who="ann", why="")
            told = {"id": "t", "action": "reroute", "seconds": "60", "key": ""}
            assert (await guard.change("/mitigate", **told)).status == 200
            for one in await inputs(guard, 5):
                assert "x-version" not in one.headers
            assert served(away) == 5

    serving(tmp_path, work, evidence={"folder": "evidence"})
    assert all("arm" not in one for one in records(tmp_path / "evidence", "decision"))


def test_of_a_slow_canary_nothing_waits_in_a_queue_when_it_is_rolled_back(tmp_path: Path) -> None:
    new = Other(pause=0.5)

    async def work(guard: Running) -> None:
        async with model_server(new) as port:
            await with_canary(guard, port, steps=[99, 100])
            await guard.change("/canary/start", who="ann", why="")
            rng = np.random.default_rng(0)
            asked = [
                asyncio.ensure_future(guard.infer(rng.random((1, 4)).tolist())) for _ in range(20)
            ]
            await until(lambda: guard.service.guard.lines[""].canary.under_way == 3)
            await guard.change("/canary/rollback", who="ann", why="slow")
            statuses = [(await one).status for one in asked]
            assert statuses == [200] * 20
            # Those under way were answered, the rest went to the stable version at once.
            assert served(new) == 3

    serving(tmp_path, work, limits={"upstream_connections": 3})


def test_the_weight_outlives_the_guard_and_is_for_one_that_can_roll_back(tmp_path: Path) -> None:
    async def first(guard: Running) -> None:
        async with model_server(Other()) as port:
            await with_canary(guard, port, steps=[10, 100])
            await guard.change("/canary/start", who="ann", why="")

    serving(tmp_path, first)
    (kept,) = json.loads((tmp_path / "withstand-guard" / "canary.json").read_text()).values()
    assert (kept["state"], kept["weight"]) == ("running", 10)
    # A guard inside another server has no admin port, and nobody who looks.
    guard = guard_from(tmp_path / "withstand.yaml")
    assert guard.lines[""].canary is None
    guard.close()


def test_controllers_of_a_cluster_read_the_verdict_with_a_token_of_their_own(
    tmp_path: Path,
) -> None:
    async def work(guard: Running) -> None:
        port = guard.server._sockets[2].getsockname()[1]
        token = guard.service.secrets.get("analysis").hex()
        assert token != guard.service.token

        async def ask(path: str, method: str = "GET", body: object = None, **more: str) -> Any:
            content = b"" if body is None else json.dumps(body).encode()
            more = {"host": "guard.ns.svc:8102", **more}
            return await guard.send(request(content, path, method=method, **more), port)

        bearer = {"authorization": f"Bearer {token}"}
        for wrong in ({}, {"authorization": f"Bearer {guard.service.token}"},
                      {"authorization": "Bearer "}, {"authorization": token}):  # fmt: skip
            assert (await ask("/analysis/m", **wrong)).status == 401
            assert (await ask("/metrics", **wrong)).status == 401
        wrong_bodies: list[object] = [None, {}, [], {"metadata": 3}, {"metadata": {"token": 3}}]
        for body in wrong_bodies:
            assert (await ask("/analysis/m/passed", "POST", body)).status == 401
        metadata = {"metadata": {"token": token}}
        assert (await ask("/analysis/m", **bearer)).status == 404
        async with model_server(Other()) as new:
            canary = {"upstream": f"http://127.0.0.1:{new}", **QUICK, "compare": {"fooled": {}}}
            guard.rewrite(models={"m": {"canary": canary}})
            assert (await guard.change("/reload")).status == 200

            async def gates() -> tuple[str, bool, bool, int, int]:
                told = (await ask("/analysis/m", **bearer)).json
                answers = [(await ask(f"/analysis/m/{gate}", "POST", metadata)).status
                           for gate in ("passed", "failed")]  # fmt: skip
                return told["verdict"], told["passed"], told["failed"], *answers

            unknown = ("inconclusive", False, False, 409, 409)
            assert await gates() == unknown
            await guard.change("/canary/start", who="ann", why="")
            assert await gates() == unknown
            counts = {"tried": "500", "both": "50", "canary": "0", "control": "0"}
            await guard.change("/canary/outcomes", arm="pairs", source="a", **counts)
            assert await gates() == ("pass", True, False, 200, 409)
            counts = {"tried": "500", "both": "0", "canary": "200", "control": "0"}
            await guard.change("/canary/outcomes", arm="pairs", source="b", **counts)
            assert await gates() == ("fail", False, True, 409, 200)
        metrics = (await ask("/metrics", **bearer)).body
        assert b'withstand_canary_state{model="m",state="rolled_back"} 1.0' in metrics
        # It reads, and changes nothing.
        for path in ("/canary/start", "/reload", "/kill", "/status", "/analysis", "/analysis/m/x"):
            for method in ("GET", "POST"):
                assert (await ask(path, method, metadata, **bearer)).status == 404
        assert (await guard.admin("/analysis/m")).status == 404
        kept = guard.service.guard.lines["m"].canary.rollout
        assert kept.state == "rolled_back"

    serving(tmp_path, work, models={"m": {}}, analysis="127.0.0.1:0")


class Shifted(Model):
    """The model that is right about its own classes, off by one where the first number is high."""

    def __init__(self, above: float) -> None:
        super().__init__()
        self.above = above

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        answer = await super().ask(method, target, headers, body)
        if method == "GET":
            return answer
        asked = read_v2(body, None, Limits()).inputs[0].values
        if asked[0, 0] <= self.above:
            return answer
        return answer._replace(body=v2_answer(np.roll(scores(asked), 1, axis=1)))


def test_the_command_line_probes_both_arms_and_says_what_became_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((60, 4)).astype(np.float32)
    x[:, 0] = 0.5
    changed = x.copy()
    changed[:40, 0] = 0.5001
    y = scores(x).argmax(1)
    np.savez(tmp_path / "probes.npz", x=x, y=y, x_adv=changed)

    def run(*words: str) -> tuple[int, str]:
        told = CliRunner().invoke(
            app, ["guard", "canary", *words, "--config", str(tmp_path / "withstand.yaml")]
        )
        if told.exception is not None and not isinstance(told.exception, SystemExit):
            return 2, str(told.exception)
        return told.exit_code, told.stdout

    async def work(guard: Running) -> None:
        admin = {"admin": f"127.0.0.1:{guard.admin_port}", "listen": f"127.0.0.1:{guard.port}"}
        probing = ("probe", str(tmp_path / "probes.npz"), "--json")

        async def ran(*words: str) -> tuple[int, str]:
            # The file names the ports that the system chose.
            before = guard.file.read_text()
            guard.rewrite(**admin)
            try:
                return await asyncio.to_thread(run, *words)
            finally:
                guard.file.write_text(before)
                guard.config |= {"admin": "127.0.0.1:0", "listen": "127.0.0.1:0"}

        assert "has no canary" in (await ran("status"))[1]
        async with model_server(Shifted(0.50005)) as port:
            await with_canary(guard, port, compare={"fooled": {}, "wrong": {}})
            code, told = await ran("status")
            assert (code, told.startswith("*: off at 0 % (step 1 of 5), verdict none")) == (3, True)
            code, told = await ran(*probing)
            assert (code, "no arm 'canary' at present" in told) == (2, True)
            assert (await ran("start", "--why", "a try", "--id", "1"))[0] == 0
            code, told = await ran(*probing)
            found = json.loads(told)
            # Of the first 50 the new one is fooled by 40, and nobody asks for the others any more.
            assert found["wrong"] == {"tried": 50, "canary": 0, "control": 0}
            assert found["fooled"]["control"] == 0
            assert found["fooled"]["canary"] == 40
            assert (code, found["state"], found["verdict"]) == (1, "rolled_back", "fail")
            assert (await ran("start", "--why", "once more", "--id", "1"))[0] == 0
            assert json.loads((await ran("status", "--json"))[1])["state"] == "rolled_back"
            assert "this is for one that is running" in (await ran("freeze", "--why", "a"))[1]
        # An equal one; what was told once does not count again.
        async with model_server(Model()) as port:
            await with_canary(guard, port, compare={"fooled": {}, "wrong": {}})
            assert (await ran("start", "--why", "another"))[0] == 0
            counted = [json.loads((await ran(*probing))[1])["counted"] for _ in range(2)]
            assert counted == [4, 0]
            code, told = await ran("status", "--json")
            assert json.loads(told)["compared"]["fooled"]["pairs"] == 60
            assert code == 3
            assert (await ran("promote", "--why", "I know", "--json"))[0] == 0
            assert (await ran("rollback", "--why", "I do not"))[0] == 0

    serving(tmp_path, work)
