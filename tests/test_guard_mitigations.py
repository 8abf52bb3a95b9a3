"""Actions that were ordered, and the passes of permitted attacks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from guarding import Model
from serving import Running, serving

from withstand import WithstandError
from withstand.evidence.log import Break, read
from withstand.guard import Experiment, Experiments, Keys, Mitigation, Mitigations, Secrets

OPERATOR = {"who": "somebody", "why": "a try"}


def ordered(**told: Any) -> Mitigation:
    return Mitigation(**{"id": "a", "action": "block", "until": 100.0, **told})


def test_an_order_holds_for_whom_it_is_until_its_time_is_over(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "state" / "mitigations.json"
    held = Mitigations(path, clock=lambda: now)
    assert held.of("k", "m") == ()
    assert held.put(ordered(id="a", key="k"))
    assert held.put(ordered(id="b", action="tag", model="m", until=50.0))
    assert not held.put(ordered(id="a", action="tag"))
    assert held.of("k", "m") == ("tag", "block")
    assert held.of("k", "other") == ("block",)
    assert held.of("other", "m") == ("tag",)
    again = Mitigations(path, clock=lambda: now)
    assert again.all() == held.all()
    now = 60.0
    assert again.of("k", "m") == ("block",)
    assert again.lift("a")
    assert not again.lift("a")
    assert Mitigations(path, clock=lambda: 0.0).of("k", "m") == ()


def test_what_cannot_be_kept_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    held = Mitigations(tmp_path / "file" / "mitigations.json", clock=lambda: 0.0)
    with pytest.raises(WithstandError, match=r"cannot be written .* guard\.state"):
        held.put(ordered())
    assert held.all() == []
    with pytest.raises(WithstandError, match="one of tag, coarsen"):
        held.put(ordered(action="nuke"))
    (tmp_path / "broken.json").write_text('[{"id": 1}]')
    with pytest.raises(WithstandError, match="restore the file"):
        Mitigations(tmp_path / "broken.json")


def test_an_order_is_taken_in_shadow_survives_a_restart_and_is_lifted(tmp_path: Path) -> None:
    told = {"id": "inc-1", "action": "block", "seconds": "600", "key": "", **OPERATOR}

    async def first(guard: Running) -> None:
        assert (await guard.infer()).status == 200
        assert (await guard.change("/mitigate", **told)).json == {"id": "inc-1", "new": True}
        assert (await guard.change("/mitigate", **told)).json == {"id": "inc-1", "new": False}
        assert (await guard.infer()).status == 403
        assert guard.counted("mitigations") == 1
        guard.rewrite(digits=2)
        assert (await guard.change("/reload")).status == 200
        assert (await guard.infer()).status == 403

    async def second(guard: Running) -> None:
        (kept,) = (await guard.admin("/mitigations")).json
        assert (kept["id"], kept["action"], kept["who"]) == ("inc-1", "block", "somebody")
        assert (await guard.infer()).status == 403
        assert (await guard.change("/lift", id="inc-1", **OPERATOR)).json == {"lifted": True}
        assert (await guard.change("/lift", id="inc-1", **OPERATOR)).json == {"lifted": False}
        assert (await guard.infer()).status == 200

    for work in (first, second):
        serving(tmp_path, work, mode="shadow", evidence={"folder": "evidence"})
    kinds = [place.record.kind for place in read(tmp_path / "evidence")
             if not isinstance(place, Break)]  # fmt: skip
    assert (kinds.count("mitigation"), kinds.count("lifted")) == (1, 1)


@pytest.mark.parametrize(
    ("keys", "told", "status", "says"),
    [
        ({}, {"seconds": "-1"}, 400, "give id"),
        ({}, {"id": "a b"}, 400, "give id"),
        ({}, {"kee": "abc"}, 400, "'kee' is unknown; known: id, action, seconds, key"),
        ({"open": False, "keys": "keys.json"}, {"key": "0" * 16}, 409, "is nobody's; give a whole"),
        ({}, {"action": "nuke"}, 409, "one of tag"),
        ({}, {"action": "throttle"}, 409, "add guard.throttle"),
        ({}, {"action": "reroute"}, 409, "add guard.reroute"),
        ({"mode": "observe"}, {}, 409, "shadow or enforce"),
        ({"models": {"m": {}}}, {"model": "n"}, 409, "it is one of m"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused(
    tmp_path: Path, keys: dict[str, Any], told: dict[str, str], status: int, says: str
) -> None:
    order = {"id": "a", "action": "block", "seconds": "60", "key": "", **told}

    async def work(guard: Running) -> None:
        answer = await guard.change("/mitigate", **order)
        assert (answer.status, says in answer.json["error"]) == (status, True)
        assert (await guard.admin("/mitigations")).json == []

    serving(tmp_path, work, **keys)


def test_an_order_says_on_whom_it_is(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        keys = Keys(tmp_path / "keys.json", guard.service.secrets.get("pepper"))
        shown = [keys.make(name) for name in ("acme", "else")]
        guard.service.look_after()
        identity = next(key.id for key in keys if key.tenant == "acme")
        told = {"id": "a", "action": "block", "seconds": "60"}
        answer = await guard.change("/mitigate", **told)
        assert (answer.status, "key is missing" in answer.json["error"]) == (400, True)
        answer = await guard.change("/mitigate", **told, key=identity[:16])
        assert answer.status == 409
        assert [(await guard.infer(x_api_key=one)).status for one in shown] == [200, 200]
        assert (await guard.change("/mitigate", **told, key=identity)).status == 200
        assert [(await guard.infer(x_api_key=one)).status for one in shown] == [403, 200]

    serving(tmp_path, work, open=False, keys="keys.json")


def test_a_permitted_attack_is_told_from_an_attack(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "withstand-secrets")
    keys = Keys(tmp_path / "keys.json", secrets.get("pepper"))
    mine, others = keys.make("red team"), keys.make("somebody")
    identity = next(key.id for key in keys if key.tenant == "red team")
    passes = Experiments(secrets.get("experiment"))
    run = Experiment(id="run-1", key=identity, until=time.time() + 60)
    late = Experiment(id="run-1", key=identity, until=time.time() - 1)
    shown = [
        (mine, passes.sign(run), "7"),
        (others, passes.sign(run), "7"),
        (mine, passes.sign(late), "7"),
        (mine, Experiments(b"0" * 32).sign(run), "7"),
        (mine, passes.sign(run)[:-1], "7"),
        (mine, "e30=." + "0" * 64, "7"),
        (mine, passes.sign(run), "a b"),
    ]

    async def work(guard: Running) -> None:
        for key, told, probe in shown:
            headers = {"x-api-key": key, "x-withstand-experiment": told, "x-withstand-probe": probe}
            assert (await guard.infer(**headers)).status == 200

    serving(tmp_path, work, open=False, keys="keys.json", evidence={"folder": "evidence"})
    kept = [place.record.content for place in read(tmp_path / "evidence")
            if not isinstance(place, Break) and place.record.kind == "decision"]  # fmt: skip
    assert [(one.get("experiment"), one.get("probe")) for one in kept] == [
        ("run-1", "7"), *[(None, None)] * 5, ("run-1", ""),
    ]  # fmt: skip


def test_a_record_tells_the_highest_scores_of_the_first_rows(tmp_path: Path) -> None:
    async def ask(guard: Running) -> None:
        assert (await guard.infer([[0.0, 0.0, 0.0, 0.0]] * 5)).status == 200

    serving(tmp_path, ask, model=Model(), evidence={"folder": "evidence"})
    (answered,) = [place.record.content["answered"] for place in read(tmp_path / "evidence")
                   if not isinstance(place, Break) and place.record.kind == "decision"]  # fmt: skip
    assert answered == [[[0, 0.3333], [1, 0.3333], [2, 0.3333]]] * 4
