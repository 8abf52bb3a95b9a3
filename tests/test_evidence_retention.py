"""What is over is gone for good, the log says so, and what is left still holds."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from withstand._errors import ConfigError, EvidenceError
from withstand.cli._main import app
from withstand.evidence.log import (
    Break,
    Head,
    Index,
    Log,
    Query,
    Retention,
    Vault,
    order,
    read,
    retain,
    verify,
)
from withstand.guard import EvidenceJournal

MASTER = bytes(range(32))
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("withstand.guard.journal._keeper._LOOK", 0.02)


def cli(*words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["evidence", *words])
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        return 2, str(told.exception)
    return told.exit_code, told.output


def written(folder: Path, n: int = 40) -> tuple[Path, list[Head]]:
    """A log of some segments with an input for each fourth record, and all of its heads."""
    vault = Vault(folder / "vault", MASTER)
    with Log(folder, group=4, segment_bytes=1500) as log:
        for number in range(n):
            content: dict[str, Any] = {"number": number}
            if number % 4 == 0:
                (content["input"],) = vault.put([b"input %d" % number])
            log.append(content)
            log.flush()
    vault.close()
    return folder, heads(folder)


def heads(folder: Path) -> list[Head]:
    found = [place.record for place in read(folder) if not isinstance(place, Break)]
    return [Head(record.seq, record.hash) for record in found]


def walls(folder: Path) -> dict[int, float]:
    return {p.record.seq: p.record.wall for p in read(folder) if not isinstance(p, Break)}


def test_what_is_over_is_removed_and_the_rest_verifies(tmp_path: Path) -> None:
    folder, anchors = written(tmp_path)
    before = sorted(folder.glob("*.log"))
    assert len(before) > 5
    when = walls(folder)
    vault = Vault(folder / "vault", MASTER)
    # As if it were an hour later than the middle of it.
    kept = Retention(inputs=HOUR, records=HOUR)
    with Log(folder, segment_bytes=1500) as log:
        done = retain(log, vault, kept, now=when[25] + HOUR)
        again = retain(log, vault, kept, now=when[25] + HOUR)
    assert again.inputs == again.records == again.segments == 0
    assert sorted(folder.glob("*.log"))[0] == before[done.segments]
    assert 0 < done.records < 25
    found = verify(folder, anchors, vault)
    assert found.faults == ()
    assert found.purged == done.records
    assert found.erased == done.inputs > 0
    assert found.anchored == anchors[-1].seq
    first = heads(folder)[0]
    assert first.seq == done.records + 1
    # The writer goes on where it was, and a second time removes what was left then.
    with Log(folder, segment_bytes=1500) as log:
        log.append({"number": -1})
        log.flush()
        retain(log, vault, kept, now=time.time() + 2 * HOUR)
    assert vault.references() == []
    found = verify(folder, anchors, vault)
    assert found.faults == ()
    assert found.purged > done.records
    vault.close()


def test_the_index_forgets_what_was_removed(tmp_path: Path) -> None:
    folder, _ = written(tmp_path)
    index = Index(folder)
    index.update()
    with Log(folder) as log:
        done = retain(log, None, Retention(records=HOUR), now=walls(folder)[25] + HOUR)
    assert index.update() is None
    assert [record.seq for record in index.find(Query())] == [head.seq for head in heads(folder)]
    assert index.find(Query())[0].seq == done.records + 1


def test_what_is_removed_without_a_word_is_named(tmp_path: Path) -> None:
    folder, anchors = written(tmp_path)
    min(folder.glob("*.log")).unlink()
    (fault,) = verify(folder).faults
    assert fault.startswith("records 1 to ")
    assert "no record tells that they were purged" in fault
    # Nor does the story of another purge cover it.
    purged, _ = written(tmp_path / "purged")
    with Log(purged) as log:
        retain(log, None, Retention(records=HOUR), now=walls(purged)[25] + HOUR)
    min(purged.glob("*.log")).unlink()
    assert "no record tells" in verify(purged).faults[0]
    assert anchors[0].seq == 1


def test_a_purge_that_was_interrupted_is_sound_and_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = written(tmp_path / "log")
    kept, now = Retention(records=HOUR), walls(folder)[25] + HOUR
    segments = sorted(folder.glob("*.log"))
    unlink = Path.unlink
    # Killed before each of the removals, one after the other.
    for removals in range(3):
        left = removals

        def killed(self: Path, missing_ok: bool = False) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            unlink(self, missing_ok=missing_ok)

        copy = tmp_path / f"copy{removals}"
        shutil.copytree(folder, copy)
        with monkeypatch.context() as patch, Log(copy) as log:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                retain(log, None, kept, now=now)
        assert len(sorted(copy.glob("*.log"))) >= len(segments) - removals
        assert verify(copy).faults == ()
        with Log(copy) as log:
            retain(log, None, kept, now=now)
        found = verify(copy)
        assert found.faults == ()
        assert found.purged > 0


def test_segments_end_with_the_day_so_that_they_can_be_removed(tmp_path: Path) -> None:
    with Log(tmp_path, segment_seconds=0.05) as log:
        for number in range(4):
            log.append({"number": number})
            log.flush()
            time.sleep(0.06)
    assert len(list(tmp_path.glob("*.log"))) >= 4
    with Log(tmp_path, segment_seconds=1000.0) as log:
        log.append({"number": 5})
    assert verify(tmp_path).faults == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [({"inputs": 0.0}, "inputs are kept 0 s"), ({"records": -1.0}, "records are kept -1 s"),
     ({"inputs": 10.0, "records": 5.0}, "records name inputs")],
)  # fmt: skip
def test_what_cannot_be_kept_so_is_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Retention(**given)


def test_a_running_guard_erases_what_the_command_line_asks_it_to(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", MASTER)
    references = vault.put([b"one", b"two", b"three"])
    log = Log(tmp_path, segment_bytes=500)
    for reference in references:
        log.append({"input": reference})
        log.flush()
    journal = EvidenceJournal(log, vault)
    code, told = cli("erase", str(tmp_path), references[0], "--why", "asked for")
    assert (code, told.strip()) == (0, f"erased: {references[0]}")
    assert "was it erased before" in cli("erase", str(tmp_path), references[0], "--why", "x")[1]
    code, told = cli("retain", str(tmp_path), "--inputs", "0.001s", "--records", "0.001s")
    assert code == 0
    assert told.startswith("erased: 2 inputs; removed: ")
    # What the writer cannot do is told to whoever asked for it.
    with pytest.raises(EvidenceError, match="no reference of an input"):
        order(tmp_path, None, {"do": "erase", "inputs": ["../x"], "why": ""})
    journal.close()
    assert list((tmp_path / "orders").iterdir()) == []
    vault = Vault(tmp_path / "vault")
    found = verify(tmp_path, vault=vault)
    assert (found.faults, vault.references()) == ((), [])
    assert found.purged > 0
    vault.close()


def test_an_order_that_nobody_takes_waits_for_the_next_writer(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", MASTER)
    (reference,) = vault.put([b"one"])
    asked = {"do": "erase", "inputs": [reference], "why": "asked for"}
    with Log(tmp_path) as log:
        log.append({"input": reference})
        log.flush()
        assert order(tmp_path, vault.folder, asked, patience=0.1) is None
    journal = EvidenceJournal(Log(tmp_path), vault)
    until = time.monotonic() + 20
    while not vault.erased(reference) and time.monotonic() < until:
        time.sleep(0.02)
    journal.close()
    assert verify(tmp_path).erased == 1


def test_a_guard_keeps_to_its_retention_by_itself(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", MASTER)
    (reference,) = vault.put([b"one"])
    log = Log(tmp_path)
    log.append({"input": reference})
    log.flush()
    erased = threading.Event()
    real = vault.erase
    vault.erase = lambda *given: (real(*given), erased.set())[0]  # type: ignore[method-assign]
    journal = EvidenceJournal(log, vault, retention=Retention(inputs=0.001))
    assert erased.wait(20)
    journal.close()
    told = [p.record for p in read(tmp_path) if not isinstance(p, Break)]
    (record,) = [record for record in told if record.kind == "erased"]
    assert record.content["inputs"] == [reference]


def test_the_command_line_says_what_it_removed(tmp_path: Path) -> None:
    folder, _ = written(tmp_path)
    assert "give --inputs, --records" in cli("retain", str(folder))[1]
    assert "is no time" in cli("retain", str(folder), "--inputs", "30x")[1]
    code, told = cli("retain", str(folder), "--records", "0.0001s")
    assert code == 0
    assert told.startswith("erased: 10 inputs; removed: ")
    code, told = cli("verify", str(folder))
    assert (code, "those before were removed for their age" in told) == (0, True)
    assert json.loads(cli("verify", str(folder), "--json")[1])["purged"] > 0
