"""The log of who did what, and what an anchor elsewhere shows of it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from monitoring import NOW
from test_monitor import watching, written
from test_monitor_tell import Clock
from typer.testing import CliRunner

from withstand._errors import OperationError
from withstand.cli._main import app
from withstand.evidence.log import Signer, read_checkpoints
from withstand.monitor import SIGNING, Act, Audit, Monitor, Store
from withstand.monitor.store._audit import _hash


def acts(store: Store, *names: str) -> Audit:
    audit = Audit(store)
    for name in names:
        audit.add(Act(who=name, role="admin", action="rollback", wall=NOW))
    return audit


def forged(folder: Path, names: list[str]) -> None:
    """The whole chain anew, as whoever can write the file can."""
    file = sqlite3.connect(folder / "operations.sqlite")
    rows = file.execute("SELECT told FROM audit ORDER BY seq").fetchall()
    file.execute("DELETE FROM audit")
    before = ""
    for seq, name in enumerate(names, 1):
        told = json.dumps({**json.loads(rows[0][0]), "who": name})
        before = _hash(before, told)
        file.execute("INSERT INTO audit VALUES (?, ?, ?)", (seq, told, before))
    file.commit()
    file.close()


@pytest.fixture
def anchored(tmp_path: Path) -> tuple[Monitor, Path, str]:
    """A monitor that has signed three actions; its anchor, and the public key."""
    acts(Store(tmp_path / "store"), "ann", "bob", "cem")
    one = watching(tmp_path, Clock(), audit_anchor="elsewhere.jsonl", slos={})
    one.step()
    public = Signer(tmp_path / "store" / SIGNING, anchors=()).public
    return one, tmp_path / "elsewhere.jsonl", public


def heads(anchor: Path, public: str) -> list[Any]:
    return [one.head for one in read_checkpoints(anchor, public)]


def test_each_new_head_is_signed_once(anchored: tuple[Monitor, Path, str]) -> None:
    one, anchor, public = anchored
    assert [head.seq for head in heads(anchor, public)] == [3]
    one.step()
    assert len(heads(anchor, public)) == 1
    acts(one.store, "dan")
    one.step()
    assert [head.seq for head in heads(anchor, public)] == [3, 4]
    assert Audit(one.store).verify(heads(anchor, public)) == 4


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["ann", "bob", "eve"], "action 3 .* is not the one that the anchor vouches for"),
        (["eve", "bob", "cem"], "action 3 .* is not the one that the anchor vouches for"),
        (["ann", "bob"], "action 3 .* is gone, and an anchor vouches for it; 2 are left"),
        (["eve", "bob", "cem", "dan"], "action 3 .* is not the one"),
    ],
)
def test_a_chain_that_was_written_anew_is_sound_in_itself_and_not_to_an_anchor(
    anchored: tuple[Monitor, Path, str], names: list[str], said: str
) -> None:
    one, anchor, public = anchored
    forged(one.store.folder, names)
    audit = Audit(one.store)
    assert audit.verify() == len(names)
    with pytest.raises(OperationError, match=said):
        audit.verify(heads(anchor, public))
    # The monitor that signed it pages, and gives the new one no signature.
    (alert,) = [told for told in one.step().fired if told.labels.get("of") == "audit"]
    assert alert.severity == "page"
    assert "action 3" in alert.annotations["summary"]
    assert len(heads(anchor, public)) == 1
    # Neither does a restart make it good: what was signed before contradicts it.
    watching(one.path.parent, Clock(), audit_anchor="elsewhere.jsonl", slos={}).step()
    with pytest.raises(OperationError, match=said):
        audit.verify(heads(anchor, public))


def test_an_anchor_that_cannot_be_told_is_counted_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acts(Store(tmp_path / "store"), "ann")
    one = watching(tmp_path, Clock(), audit_anchor="no/such/folder", slos={})
    one.step()
    assert one.own()["audit_anchor_failures"][1] == {"": 1.0}
    (said,) = [one.getMessage() for one in caplog.records if "audit_anchor" in one.getMessage()]
    assert said.startswith("monitor.audit_anchor no/such/folder cannot be written")


def test_nothing_is_signed_of_an_empty_log(tmp_path: Path) -> None:
    one = watching(tmp_path, Clock(), audit_anchor="elsewhere.jsonl", slos={})
    assert "audit" not in [told.labels.get("of") for told in one.step().fired]
    assert not (tmp_path / "elsewhere.jsonl").exists()
    assert Audit(one.store).verify([]) == 0


def test_the_command_line_verifies_against_the_anchor(
    anchored: tuple[Monitor, Path, str],
) -> None:
    one, anchor, public = anchored
    config = str(written(one.path.parent, audit_anchor="elsewhere.jsonl"))

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["monitor", "audit", "--config", config, *words])

    done = run()
    assert done.exit_code == 0, done.output
    assert "3 actions in an unbroken chain\nnot anchored" in done.output
    assert public in done.output
    known = ("--anchor", str(anchor), "--key", public)
    assert "anchored up to action 3" in run(*known).output
    forged(one.store.folder, ["eve", "bob", "cem"])
    assert run().exit_code == 0
    done = run(*known)
    assert done.exit_code == 1
    assert "action 3" in done.output
    told = json.loads(run(*known, "--json").output)
    assert (told["sound"], told["actions"], told["anchored"]) == (False, 0, 0)
    assert run("--anchor", str(anchor)).exit_code != 0


def test_what_an_anchor_did_not_take_it_is_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acts(Store(tmp_path / "store"), "ann")
    one = watching(tmp_path, Clock(), audit_anchor="later/anchor", slos={})
    one.step()
    one.step()
    assert sum("audit_anchor" in said.getMessage() for said in caplog.records) == 1
    (tmp_path / "later").mkdir()
    one.step()
    one.step()
    public = Signer(tmp_path / "store" / SIGNING, anchors=()).public
    assert [head.seq for head in heads(tmp_path / "later" / "anchor", public)] == [1]
