"""Recorded inputs, shown once more; what is learned of them; and what is written of it all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from responding import FakeGuard, attacked, configured, fake_guard, runbook

from withstand import WithstandError
from withstand.config import ReplayConfig
from withstand.evidence import Corpus, card, content_digest
from withstand.evidence.log import Log, Tensor, Vault, pack
from withstand.guard import Secrets
from withstand.harden._replay import examples
from withstand.monitor import Alerts, Campaign, Store
from withstand.respond import (
    Desk,
    Responder,
    add_to_corpus,
    postmortem,
    replay,
    review,
    run_runbook,
    write_postmortem,
)
from withstand.threat import Box

# Two classes, told apart by the first number alone.
SAMPLES = np.array([[0.2, 0.5, 0.5, 0.5], [0.8, 0.5, 0.5, 0.5]], np.float32)
MODELS = """
import numpy as np
from withstand.models import FunctionModel

def made(at):
    def scores(x):
        return np.stack([at - x[:, 0], x[:, 0] - at], 1)
    return FunctionModel(scores)

def before():
    return made(0.4)

def now():
    return made(0.5)
"""
PAYLOAD = "<script>alert(1)</script>|[x](http://e.example)`**!\n# head\x1b[2J"


def kept(folder: Path, rows: list[dict[str, Any]]) -> None:
    """An evidence log of one client's requests, as a guard writes it."""
    secrets = Secrets(folder / "withstand-secrets")
    vault = Vault(folder / "evidence" / "vault", secrets.get("master"))
    with Log(folder / "evidence") as log:
        for number, told in enumerate(rows):
            told = {
                "id": str(number), "decision": "flag", "model": "m", "key": "k1", "mode": "shadow",
                "signals": [["queries", 9.0, 5.0, True, ""]], "fingerprint": f"f{number}", **told,
            }  # fmt: skip
            rows = told.pop("rows", [told.pop("x")] if "x" in told else None)
            if rows is not None:
                tensor = Tensor("x", "FP32", np.asarray(rows, np.float32))
                (told["input"],) = vault.put([pack([tensor])])
            log.append(told, kind="decision")
        log.flush()
    vault.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An incident whose second input is wrong by the sample beside it, and was answered so."""
    path = configured(tmp_path)
    told = yaml.safe_load(path.read_text())
    python = {"kind": "python"}
    told["respond"]["replay"] = {
        "models": {name: {**python, "factory": f"models.py:{name}"} for name in ("before", "now")}
    }
    told["model"] = {**python, "factory": "models.py:now"}
    told["data"] = {"kind": "npz", "path": "d.npz", "x": "x", "y": "y"}
    told["threat"] = {"region": {"norm": "linf", "eps": 0.25}, "access": "scores"}
    path.write_text(yaml.safe_dump(told))
    (tmp_path / "models.py").write_text(MODELS)
    np.savez(tmp_path / "d.npz", x=SAMPLES, y=np.array([0, 1]))
    kept(
        tmp_path,
        [
            {"x": [0.2, 0.5, 0.5, 0.5], "answered": [[[0, 0.9]]]},
            {"x": [0.44, 0.5, 0.5, 0.5], "answered": [[[1, 0.6]]]},
            {"x": [0.5, 0.0, 0.0, 0.0], "answered": [[[1, 0.6]]]},
            {"x": [0.6, 0.9, 0.1, 0.5], "answered": [[[1, 0.6]]], "decision": "pass",
             "signals": [["queries", 9.0, 5.0, False, "timeout"]]},
            {"input_lost": "no room"},
            {"key": "other", "x": [0.1, 0.1, 0.1, 0.1]},
            {"model": "n", "x": [0.1, 0.1, 0.1, 0.1]},
        ],
    )  # fmt: skip
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    return Desk(path)


def test_a_replay_compares_then_and_now_and_proves_what_it_can(desk: Desk) -> None:
    found = replay(desk, 1)
    assert [one.seq for one in found.inputs] == [2, 3, 4, 5]
    one, two, three, four = found.inputs
    assert [x.now for x in found.inputs] == [
        {"before": 0, "now": 0}, {"before": 1, "now": 0}, {"before": 1, "now": 0},
        {"before": 1, "now": 1},
    ]  # fmt: skip
    assert [x.recorded for x in found.inputs] == [0, 1, 1, 1]
    assert [x.changed for x in found.inputs] == [False, True, True, False]
    assert (one.label, one.proven, one.distance) == (0, False, 0.0)
    # 0.24 from the sample of class 0, within 0.25, and answered 1: wrong, whoever says so.
    assert (two.label, two.proven, two.wrong) == (0, True, ("before",))
    assert two.original == content_digest(SAMPLES[0])
    assert two.distance == pytest.approx(0.24, abs=1e-6)
    assert two.to_first == pytest.approx((0.24, 0.24), abs=1e-6)
    assert one.to_first is None
    # Far from every sample: nobody can say.
    for far in (three, four):
        assert (far.label, far.proven, far.wrong) == (None, None, ())
    assert three.nearest == pytest.approx((0.5, np.sqrt(0.09 + 0.75)), abs=1e-6)
    assert found.missing == {"no room": 1}
    assert found.fooled is not None
    assert (found.fooled.value, found.fooled.n) == (0.5, 2)
    was, now = found.fooled_now("before"), found.fooled_now("now")
    assert was is not None
    assert now is not None
    assert (was.value, now.value) == (0.5, 0.0)
    told = json.loads((desk.folder(1) / "replay.json").read_text())
    assert told["fooled"]["n"] == 2
    assert told["inputs"][1]["proven"] is True
    lines = (desk.folder(1) / "replay.md").read_text().splitlines()
    assert next(line for line in lines if line.startswith("| 3.0")).count("|") == 12


@pytest.mark.parametrize("answer", ["9 * (x[:, :1] - 0.5)", "1 / (1 + np.exp(0.5 - x[:, :1]))"])
def test_a_model_that_answers_with_one_number_has_two_classes(desk: Desk, answer: str) -> None:
    models = desk.root / "models.py"
    models.write_text(MODELS + f"\ndef now():\n    return FunctionModel(lambda x: {answer})\n")
    assert [one.now["now"] for one in replay(desk, 1).inputs] == [0, 0, 0, 1]


def test_parity_tells_what_was_changed_since_the_guard_saw_it(tmp_path: Path) -> None:
    from guarding import Model
    from serving import Running, serving

    from withstand.evidence.log import Break, read
    from withstand.respond._recorded import recorded

    async def ask(guard: Running) -> None:
        for x in ([[0.1, 0.2, 0.3, 0.4]], [[0.5, 0.2, 0.3, 0.4]]):
            assert (await guard.infer(x)).status == 200

    serving(tmp_path, ask, model=Model(), evidence={"folder": "evidence", "inputs": "all"})
    secrets = Secrets(tmp_path / "withstand-secrets")
    records = [place.record for place in read(tmp_path / "evidence")
               if not isinstance(place, Break) and place.record.kind == "decision"]  # fmt: skip
    vault = Vault(tmp_path / "evidence" / "vault", secrets.get("master"))
    secret = secrets.get("fingerprint")
    found = recorded(records, vault, ReplayConfig(), secret)
    assert [one.parity for one in found.inputs] == ["same", "same"]
    assert np.allclose(found.inputs[1].values, [0.5, 0.2, 0.3, 0.4])
    assert found.inputs[0].answer in (0, 1, 2)
    records[0].content["input"], records[1].content["input"] = (
        records[1].content["input"], records[0].content["input"],
    )  # fmt: skip
    found = recorded(records, vault, ReplayConfig(), secret)
    assert [one.parity for one in found.inputs] == ["differs", "differs"]
    assert recorded(records, vault, ReplayConfig()).inputs[0].parity == "not recorded"
    shaped = recorded(records, vault, ReplayConfig(shape=[2, 2], scale=2.0, most=1), secret)
    assert shaped.inputs[0].values.shape == (2, 2)
    assert shaped.inputs[0].values[0, 0] == pytest.approx(0.25)
    assert shaped.missing == {"beyond respond.replay.most": 1}
    assert recorded(records, vault, ReplayConfig(shape=[3])).missing == {
        "not numbers of the configured shape": 2
    }
    vault.erase(records[0].content["input"])
    assert recorded(records, vault, ReplayConfig()).missing == {"erased": 1}


def test_redacted_inputs_are_not_said_to_have_been_changed(desk: Desk) -> None:
    assert {one.parity for one in replay(desk, 1).inputs} == {"differs"}
    told = yaml.safe_load(desk.path.read_text())
    told["guard"]["evidence"]["redact"] = [{"field": "inputs.age", "how": "hash"}]
    desk.path.write_text(yaml.safe_dump(told))
    found = replay(Desk(desk.path), 1)
    assert {one.parity for one in found.inputs} == {"not recorded"}


def test_without_labelled_data_nothing_is_proven(desk: Desk) -> None:
    (desk.root / "d.npz").unlink()
    found = replay(desk, 1)
    assert {one.proven for one in found.inputs} == {None}
    assert found.fooled is None
    assert "nothing is proven wrong" in found.reference
    assert "fooled then: not recorded" in found.to_markdown()
    assert add_to_corpus(desk, desk.incidents.get(1)).proven == 0


def test_nothing_is_proven_where_samples_of_two_classes_are_within_reach(desk: Desk) -> None:
    samples = np.array([[0.3, 0.5, 0.5, 0.5], [0.6, 0.5, 0.5, 0.5]], np.float32)
    np.savez(desk.root / "d.npz", x=samples, y=np.array([0, 1]))
    found = replay(desk, 1).inputs
    assert [(one.label, one.proven) for one in found[:2]] == [(0, False), (None, None)]


def test_a_campaigns_inputs_are_found_with_an_index_as_without(tmp_path: Path) -> None:
    from withstand.evidence.log._index import Index
    from withstand.respond._trail import trail

    kept(tmp_path, [{"fingerprint": "f1"}, {"key": "other", "fingerprint": "f1"}])
    attacked(tmp_path, keys=("k1",))
    campaign = Alerts(Store(tmp_path / "withstand-monitor")).campaign("c")
    before = trail(tmp_path / "evidence", campaign)
    Index(tmp_path / "evidence").update()
    assert len(before) == 2
    assert trail(tmp_path / "evidence", campaign) == before


def test_without_recorded_inputs_there_is_nothing_to_replay(tmp_path: Path) -> None:
    path = configured(tmp_path)
    kept(tmp_path, [{"input_lost": "no room"}])
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    with pytest.raises(WithstandError, match=r"no recorded inputs \(without an input: 1 no room"):
        replay(Desk(path), 1)


def test_every_copy_of_the_evidence_is_kept_beside_the_next(tmp_path: Path) -> None:
    path = configured(tmp_path)
    runbook(tmp_path, "s", {"name": "keep", "action": "snapshot_evidence"})
    kept(tmp_path, [{"input_lost": "no room"}])
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    desk = Desk(path)
    for again in (False, True, True):
        assert run_runbook(desk, 1, "s", who="ann", again=again)[-1].state == "done"
    manifests = list(desk.folder(1).glob("manifest*.json"))
    assert len({json.loads(one.read_text())["taken"] for one in manifests}) == 3
    assert len(list(desk.folder(1).glob("evidence*.jsonl"))) == 3
    (desk.folder(1) / "manifest.json").write_text("{")
    assert run_runbook(desk, 1, "s", who="ann", again=True)[-1].state == "done"


def test_a_class_that_was_corrected_is_the_one_that_is_trained_on(tmp_path: Path) -> None:
    path = configured(tmp_path)
    kept(tmp_path, [{"x": [0.1, 0.2]}, {"x": [0.1, 0.3]}])
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    desk = Desk(path)
    for print_, label in (("f0", 1), ("f1", 1), ("f0", 2)):
        review(desk, print_, "adversarial", who="ann", label=label)
        add_to_corpus(desk, desk.incidents.get(1))
    found = examples(Corpus(desk.root / "corpus"), (2,), Box(0, 1), None)
    rows = {tuple(x): y for x, y in zip(found.x.tolist(), found.y.tolist(), strict=True)}
    assert len(found) == 2
    assert sorted(rows.values()) == [1, 2]
    assert rows[tuple(np.float32([0.1, 0.2]).tolist())] == 2


def test_only_what_is_proven_or_confirmed_goes_into_the_corpus(desk: Desk) -> None:
    incident = desk.incidents.get(1)
    none = add_to_corpus(desk, incident)
    assert (none.new, none.left, none.proven) == (0, 4, 0)
    replay(desk, 1)
    first = add_to_corpus(desk, incident)
    assert (first.new, first.proven, first.left) == (1, 1, 3)
    corpus = Corpus(desk.root / "corpus")
    (entry,) = corpus.entries()
    assert (entry.kind, entry.label, entry.answer, entry.original) == (
        "adversarial", 0, 1, content_digest(SAMPLES[0]),
    )  # fmt: skip
    assert entry.lineage is not None
    assert entry.lineage["record"] == 3
    assert np.allclose(corpus.read([entry])[0], [0.44, 0.5, 0.5, 0.5])
    assert add_to_corpus(desk, incident).new == 0
    review(desk, "f2", "adversarial", who="ann")
    review(desk, "f3", "adversarial", who="ann", label=0)
    review(desk, "f1", "benign", who="ann", why="a person's word counts")
    last = add_to_corpus(desk, incident)
    assert (last.new, last.proven, last.confirmed, last.unlabelled, last.released, last.left) == (
        2, 0, 1, 1, 1, 1,
    )  # fmt: skip
    kinds = {(entry.kind, entry.label, entry.verdict) for entry in corpus.entries()}
    assert kinds == {("adversarial", 0, ""), ("flagged", None, "attack")}
    assert corpus.verify() == ()


def test_a_postmortem_tells_all_that_is_known_and_says_what_is_not(
    desk: Desk, tmp_path: Path
) -> None:
    bare = postmortem(desk, 1)
    assert "inputs that fooled the model, by replay: not recorded" in bare
    assert "- corpus: not recorded" in bare
    assert "- snapshot: not recorded" in bare
    assert "- [ ] replay: `withstand incident replay 1`" in bare
    replay(desk, 1)
    runbook(
        tmp_path, "r", {"name": "keep", "action": "snapshot_evidence"},
        {"name": "learn", "action": "add_to_corpus"},
        {"name": "stop", "action": "block", "with": {"keys": ["k1"]}, "approval": True},
    )  # fmt: skip
    run_runbook(desk, 1, "r", who="ann")
    write_postmortem(desk, 1, tmp_path / "p.md", who="ann")
    text = (tmp_path / "p.md").read_text()
    for line in (
        "# Postmortem of incident 1: somebody searches m",
        "- One client asked 90 times, of which 40 were flagged",
        "- requests in the evidence: 5 (4 flag, 1 pass)",
        "- inputs that fooled the model, by replay: 50.0 % [1.3, 98.7] of 2 that can be judged",
        "- and now, now: 0.0 % [0.0, 84.2] of 2 that can be judged",
        "| time to detect: 10.0 s |",
        "time to recover: not recorded",
        "- inputs lost, no room: 1",
        "- inputs: 4 of 5 requests have theirs in the vault",
        "- sensor queries has failed on 1 of 5 requests",
        "- sensor queries failed 1 times and saw nothing",
        "- [ ] step 3, stop: approval",
        "- [ ] review 4 inputs that nobody has looked at",
        "- chain: whole up to record",
        "- corpus: done: 1 new entries; 1 proven wrong",
        "- retraining: not recorded",
        "- 4 recorded inputs are not what the guard has checked",
        "| 3.0 | queries | 1 | before 1, now 0 | 0 | yes | differs |",
    ):
        assert line in text, line
    manifest = json.loads((desk.folder(1) / "manifest.json").read_text())
    assert f"sha256 `{manifest['sha256']}`" in text
    assert desk.incidents.timeline(1)[-1].kind == "postmortem"
    assert desk.observations.of("M8") == []


def test_a_broken_chain_is_never_told_as_whole(desk: Desk) -> None:
    (segment,) = desk.evidence.glob("*.log")
    segment.write_bytes(segment.read_bytes().replace(b'"flag"', b'"pass"', 1))
    text = postmortem(desk, 1)
    assert "- chain: broken" in text
    assert "whole" not in text
    runbook(desk.root, "r", {"name": "keep", "action": "snapshot_evidence"})
    (step,) = run_runbook(desk, 1, "r", who="ann")
    assert step.state == "failed"
    assert "the evidence is broken: record 2" in step.result
    assert json.loads((desk.folder(1) / "manifest.json").read_text())["chain"]["faults"]


def test_what_clients_and_people_write_is_text_in_a_postmortem(tmp_path: Path) -> None:
    path = configured(tmp_path)
    kept(tmp_path, [{"input_lost": PAYLOAD, "decision": PAYLOAD, "model": PAYLOAD,
                     "signals": [[PAYLOAD, 1.0, 1.0, True, PAYLOAD]]}])  # fmt: skip
    alert = attacked(tmp_path)
    alerts = Alerts(Store(tmp_path / "withstand-monitor"))
    now = time.time()
    alerts.put_campaign(
        Campaign(id="c", model=PAYLOAD, kind="client", first=now - 5, last=now, keys=("k1",),
                 tenant=PAYLOAD, sensors={PAYLOAD: 1})
    )  # fmt: skip
    alerts.fire(
        type(alert)(labels=alert.labels, starts=alert.starts, campaign="c",
                    annotations={"summary": PAYLOAD})
    )  # fmt: skip
    Responder(path).step()
    desk = Desk(path)
    run_runbook(desk, 1, "attack-by-one-client", who=PAYLOAD)
    text = postmortem(desk, 1)
    for raw in ("<script", "[x](", "http://", "**!", "\x1b", "\n# head", "`**"):
        assert raw not in text, raw
    rows = [line for line in text.splitlines() if line.startswith("| 20")]
    assert rows
    assert {line.count("|") for line in rows} == {4}


def test_the_markdown_shown_is_the_text_itself() -> None:
    from withstand.respond._markdown import escaped

    assert escaped("plain, text; 1.5 - x") == "plain, text; 1.5 - x"
    assert escaped("a\nb\x00c") == "a b c"
    assert escaped("www.e.example") == "www\\.e.example"
    assert len(escaped("x" * 1000)) == 300


@pytest.fixture
def guard() -> Iterator[FakeGuard]:
    with fake_guard() as found:
        yield found


@pytest.mark.slow
def test_a_job_outlives_the_responder_and_its_result_is_on_the_timeline(
    desk: Desk, guard: FakeGuard
) -> None:
    runbook(desk.root, "r", {"name": "look", "action": "replay", "timeout": 100})
    (step,) = run_runbook(desk, 1, "r", who="ann")
    assert step.state == "running", step.result
    assert len(list(desk.folder(1).glob("job-1/pid"))) == 1
    until = time.monotonic() + 60
    while step.state == "running" and time.monotonic() < until:
        time.sleep(0.1)
        (step,) = run_runbook(Desk(desk.path), 1, "r", who="ann")
    assert step.state == "done", step.result
    assert (desk.folder(1) / "replay.json").exists()
    assert desk.incidents.timeline(1)[-1].text.startswith("step 1, look: done: replayed")


NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_retraining_goes_on_after_a_kill_and_asks_the_gate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    x = np.clip(0.5 + 0.3 * (2 * y[:, None] - 1) + 0.05 * rng.standard_normal((400, 4)), 0, 1)
    arrays = {"x_train": x[:300], "y_train": y[:300], "x": x[300:], "y": y[300:]}
    np.savez(tmp_path / "d.npz", **{k: v.astype("f4" if "x" in k else int)
                                    for k, v in arrays.items()})  # fmt: skip
    (tmp_path / "model.py").write_text(NETWORK)
    path = configured(tmp_path)
    told = yaml.safe_load(path.read_text())
    told["model"] = {"kind": "torch", "factory": "model.py:build", "weights": "w.safetensors"}
    told["data"] = {"kind": "npz", "path": "d.npz", "x": "x", "y": "y"}
    told["threat"] = {"region": {"norm": "linf", "eps": 0.05}}
    told["evaluate"] = {"preset": "smoke"}
    told["harden"] = {"epochs": 20, "rate": 0.02, "batch_size": 32}
    told["gate"] = {"clean_accuracy": {"min": 0.5}, "robust_accuracy": {"min": 0.5}}
    path.write_text(yaml.safe_dump(told))
    kept(tmp_path, [{"input_lost": "no room"}])
    attacked(tmp_path)
    Responder(path).step()
    runbook(tmp_path, "r", {"name": "better", "action": "retrain", "timeout": 500})
    (step,) = run_runbook(Desk(path), 1, "r", who="ann")
    assert step.state == "running"
    job = Desk(path).folder(1) / "job-1"
    time.sleep(1)
    # The process of the job and what it runs, as when the machine is turned off.
    os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
    until = time.monotonic() + 500
    while step.state == "running" and time.monotonic() < until:
        time.sleep(0.5)
        (step,) = run_runbook(Desk(path), 1, "r", who="ann")
    logs = {one.name: one.read_text() for one in job.glob("*.log")}
    assert (step.state, "the gate passes it" in step.result) == ("done", True), (step, logs)
    made = Desk(path).folder(1)
    assert (made / "hardened" / "weights.safetensors").exists()
    assert json.loads((made / "gate" / "gate.json").read_text())
    assert json.loads((job / "codes.json").read_text()) == [0, 0]
    assert "retraining: done: new weights in" in postmortem(Desk(path), 1)


def test_what_is_called_benign_later_is_not_trained_on(desk: Desk) -> None:
    replay(desk, 1)
    assert add_to_corpus(desk, desk.incidents.get(1)).new == 1
    corpus = Corpus(desk.root / "corpus")
    for verdict, count in (("benign", 0), ("adversarial", 1), ("benign", 0)):
        review(desk, "f1", verdict, who="ann")
        assert len(list(corpus.entries(kind="adversarial"))) == count
    assert "| adversarial, called benign | 1 |" in card(corpus)
    # The corpus has nothing of another input.
    versions = corpus.versions()
    review(desk, "f0", "benign", who="ann")
    assert (corpus.versions(), corpus.verify()) == (versions, ())


def test_what_is_called_benign_is_not_trained_on_by_another_request_of_it(tmp_path: Path) -> None:
    path = configured(tmp_path)
    kept(tmp_path, [{"x": [0.1, 0.2]}] * 2)
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    desk, corpus = Desk(path), Corpus(tmp_path / "corpus")
    for name in ("f0", "f1"):
        review(desk, name, "adversarial", who="ann", label=1)
    incident = desk.incidents.get(1)
    assert add_to_corpus(desk, incident).new == 1
    # Its only entry came by the other request.
    review(desk, "f1", "benign", who="bob")
    assert (add_to_corpus(desk, incident).released, list(corpus.entries())) == (1, [])
    versions = corpus.versions()
    add_to_corpus(desk, incident)
    assert corpus.versions() == versions


def test_a_class_given_to_several_rows_is_that_of_none(tmp_path: Path) -> None:
    path = configured(tmp_path)
    kept(tmp_path, [{"rows": [[0.1, 0.2], [0.3, 0.4]]}, {"x": [0.5, 0.6]}])
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    desk = Desk(path)
    for name in ("f0", "f1"):
        review(desk, name, "adversarial", who="ann", label=1)
    added = add_to_corpus(desk, desk.incidents.get(1))
    assert (added.confirmed, added.unlabelled) == (1, 2)
    (entry,) = Corpus(tmp_path / "corpus").entries(kind="adversarial")
    assert (entry.label, entry.lineage and entry.lineage["fingerprint"]) == (1, "f1")


def test_a_later_snapshot_leaves_an_earlier_one_as_it_was(tmp_path: Path) -> None:
    path = configured(tmp_path)
    runbook(tmp_path, "s", {"name": "keep", "action": "snapshot_evidence"})
    kept(tmp_path, [{"input_lost": "no room"}] * 3)
    attacked(tmp_path, keys=("k1",))
    Responder(path).step()
    desk = Desk(path)
    run_runbook(desk, 1, "s", who="ann")
    place = desk.folder(1)
    before = [(place / name).read_bytes() for name in ("evidence.jsonl", "manifest.json")]
    # What is older than the evidence is kept for is gone.
    shutil.rmtree(tmp_path / "evidence")
    kept(tmp_path, [])
    run_runbook(desk, 1, "s", who="ann", again=True)
    mark = hashlib.sha256(before[1]).hexdigest()[:12]
    names = (f"evidence-{mark}.jsonl", f"manifest-{mark}.json")
    assert [(place / name).read_bytes() for name in names] == before
    now = json.loads((place / "manifest.json").read_text())
    assert now["records"] < json.loads(before[1])["records"]
    assert now["sha256"] == hashlib.sha256((place / "evidence.jsonl").read_bytes()).hexdigest()
