"""The evidence log: nothing is lost that was promised, and no change goes unnoticed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import stat
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from writers import write_until_killed

from withstand._errors import EvidenceError
from withstand.cli._main import app
from withstand.evidence.log import (
    Break,
    BusyError,
    Head,
    Log,
    Signer,
    Tensor,
    Vault,
    _log,
    _record,
    _segment,
    append_to,
    fingerprinted,
    read,
    read_checkpoints,
    verify,
)
from withstand.evidence.log._record import encode

MASTER = bytes(range(32))


def written(folder: Path, n: int = 12, **options: Any) -> Path:
    with Log(folder, **options) as log:
        for number in range(n):
            assert log.append({"number": number})
            if number % 4 == 3:
                assert log.flush()
    return folder


def numbers(folder: Path) -> list[int]:
    found = [place.record for place in read(folder) if not isinstance(place, Break)]
    return [record.content["number"] for record in found if record.kind == "decision"]


def last(folder: Path) -> Path:
    return sorted(folder.glob("*.log"))[-1]


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, 3)
    assert numbers(tmp_path) == [*range(12), 0, 1, 2]
    found = verify(tmp_path)
    assert (found.head.seq, found.boots, found.unclean, found.faults) == (19, 2, 0, ())
    kinds = [p.record.kind for p in read(tmp_path) if not isinstance(p, Break)]
    assert (kinds[0], kinds[13], kinds[14], kinds[-1]) == ("boot", "close", "boot", "close")


def test_segments_follow_each_other(tmp_path: Path) -> None:
    written(tmp_path, 40, segment_bytes=1000, group=4)
    assert len(list(tmp_path.glob("*.log"))) > 5
    assert numbers(tmp_path) == list(range(40))
    written(tmp_path, 2)
    assert verify(tmp_path).faults == ()
    middle = sorted(tmp_path.glob("*.log"))[2]
    middle.unlink()
    with pytest.raises(EvidenceError, match=r"has no 00000003\.log before"):
        verify(tmp_path)


def test_a_tail_that_is_cut_anywhere_is_recovered(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 6)
    content = last(whole).read_bytes()
    ends = [place.end for place in read(whole) if not isinstance(place, Break)]
    # Every byte of the two last records, and all ends of records.
    cuts = sorted({*range(ends[-3], len(content), 7), *ends, *(end - 1 for end in ends), 0, 1})
    for cut in cuts:
        folder = tmp_path / "cut"
        shutil.copytree(whole, folder)
        last(folder).write_bytes(content[:cut])
        Log(folder).close()
        found = verify(folder)
        kept = sum(end <= cut for end in ends)
        torn = cut not in (0, *ends)
        assert found.faults == (), cut
        assert found.head.seq == kept + 2, cut
        # Only what ends with a record of kind close was closed.
        assert found.unclean == (cut not in (0, ends[-1])), cut
        boot = [p.record for p in read(folder) if not isinstance(p, Break)][kept]
        assert ("torn_bytes" in boot.content) == torn, cut
        assert len(list(folder.glob("*.torn"))) == torn
        shutil.rmtree(folder)


def test_what_is_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segment, "_PATIENCE", 1000)
    folder = written(tmp_path / "log", 6)
    content = last(folder).read_bytes()
    begin = [p.begin for p in read(folder) if not isinstance(p, Break)][-2]
    last(folder).write_bytes(content[: begin + 50])

    def goes_on() -> None:
        with last(folder).open("ab") as file:
            file.write(content[begin + 50 :])

    found = []
    for place in read(folder):
        found.append(place)
        if len(found) == 3:
            writer = threading.Timer(0.05, goes_on)
            writer.start()
    writer.join()
    assert not isinstance(found[-1], Break)
    assert found[-1].end == len(content)
    # Nobody goes on: that is a fault.
    monkeypatch.setattr(_segment, "_PATIENCE", 1)
    last(folder).write_bytes(content[: begin + 50])
    assert "not a whole record" in verify(folder).faults[0]


def test_a_log_that_is_purged_while_it_is_read_is_told(tmp_path: Path) -> None:
    folder = written(tmp_path, 40, segment_bytes=1000, group=4)
    places = read(folder)
    next(places)
    for segment in sorted(folder.glob("*.log"))[1:3]:
        segment.unlink()
    with pytest.raises(EvidenceError, match="purged just now, try again"):
        list(places)


def test_a_garbled_tail_is_kept_aside_and_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "log", 8)
    content = bytearray(last(folder).read_bytes())
    begin = [p.begin for p in read(folder) if not isinstance(p, Break)][6]
    # Pages reach the disk in any order: one may be missing before others that are there.
    content[begin + 20 : begin + 80] = bytes(60)
    last(folder).write_bytes(bytes(content))
    Log(folder).close()
    assert numbers(folder) == [0, 1, 2, 3, 4]
    boot = [p.record for p in read(folder) if not isinstance(p, Break)][6]
    assert boot.content["torn_bytes"] == len(content) - begin
    (torn,) = folder.glob("*.torn")
    assert torn.read_bytes() == content[begin:]
    assert {stat.S_IMODE(one.stat().st_mode) for one in (folder, torn)} == {0o700, 0o600}
    found = verify(folder)
    assert (found.unclean, found.faults) == (1, ())


def test_killed_at_any_moment_it_keeps_what_it_promised(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    rng = random.Random(0)
    promised = Head(0, "")
    for _ in range(12):
        ours, theirs = context.Pipe(duplex=False)
        writer = context.Process(target=write_until_killed, args=(tmp_path, theirs))
        writer.start()
        theirs.close()
        assert ours.poll(60)
        time.sleep(rng.uniform(0, 0.02))
        writer.kill()
        writer.join()
        while ours.poll():
            try:
                promised = ours.recv()
            except EOFError:
                break
        found = verify(tmp_path) if not torn(tmp_path) else None
        Log(tmp_path).close()
        sure = {p.record.seq: p.record.hash for p in read(tmp_path) if not isinstance(p, Break)}
        assert sure[promised.seq] == promised.hash
        assert found is None or found.faults == ()
    found = verify(tmp_path)
    assert found.faults == ()
    assert found.unclean == 12
    # One Log a round was closed as it should be.
    assert found.boots == 24


def torn(folder: Path) -> bool:
    return any(isinstance(place, Break) for place in read(folder))


@pytest.mark.parametrize("change", ["bit", "deleted", "swapped", "repeated", "rewritten"])
def test_a_change_is_named(tmp_path: Path, change: str) -> None:
    folder = written(tmp_path, 12)
    lines = last(folder).read_bytes().splitlines(keepends=True)
    if change == "bit":
        at = lines[5].index(b'"number":4') + 9
        lines[5] = lines[5][:at] + bytes([lines[5][at] ^ 1]) + lines[5][at + 1 :]
    elif change == "deleted":
        del lines[5]
    elif change == "swapped":
        lines[5], lines[6] = lines[6], lines[5]
    elif change == "repeated":
        lines.insert(6, lines[5])
    else:
        told = json.loads(lines[5])
        told["content"]["number"] = 99
        lines[5] = json.dumps(told, separators=(",", ":")).encode() + b"\n"
    last(folder).write_bytes(b"".join(lines))
    named = 7 if change == "repeated" else 6
    (fault,) = verify(folder).faults
    assert fault.startswith(f"record {named} (00000001.log, byte")


@pytest.mark.parametrize(
    ("kind", "content"),
    [("gap", '{"dropped":"many"}'), ("gap", '{"dropped":[]}'), ("purged", "{}"),
     ("purged", '{"segments":[7]}'), ("erased", '{"inputs":3}'), ("erased", '{"inputs":[{}]}'),
     ("decision", '["no fields"]')],
)  # fmt: skip
def test_a_forged_record_is_a_fault_and_no_crash(tmp_path: Path, kind: str, content: str) -> None:
    folder = written(tmp_path / "log", 2)
    head = verify(folder).head
    line, _ = encode(
        head, wall=time.time(), mono=time.monotonic(), boot="00", kind=kind,
        content=content.encode(),
    )  # fmt: skip
    with last(folder).open("ab") as file:
        file.write(line)
    (fault,) = verify(folder).faults
    assert fault.startswith(f"record {head.seq + 1}")


def test_an_input_that_no_vault_could_have_is_a_fault(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.append({"input": "../../etc/passwd"})
    vault = Vault(tmp_path / "vault", MASTER)
    (fault,) = verify(tmp_path / "log", vault=vault).faults
    vault.close()
    assert fault.endswith("it is no reference of an input")


def test_every_single_bit_counts(tmp_path: Path) -> None:
    folder = written(tmp_path, 2)
    content = last(folder).read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        changed = bytearray(content)
        changed[at] ^= bit
        last(folder).write_bytes(bytes(changed))
        assert verify(folder).faults, (at, bit)


def test_a_change_in_an_older_segment_is_not_recovered_from(tmp_path: Path) -> None:
    folder = written(tmp_path, 40, segment_bytes=1000, group=4)
    older = sorted(folder.glob("*.log"))[-2]
    older.write_bytes(older.read_bytes()[:-30])
    with pytest.raises(EvidenceError, match=r"was changed: .*evidence verify"):
        Log(folder)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        with pytest.raises(EvidenceError, match="has a writer already"):
            Log(tmp_path)
        assert log.append({"number": 1})
    Log(tmp_path).close()


def test_a_full_disk_loses_nothing_that_fits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "_RETRY", 0.01)
    full, real = [True], _log._write

    def some(file: int, content: bytes) -> None:
        if full[0]:
            os.write(file, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, content)

    with Log(tmp_path, group=4, most=40) as log:
        assert log.flush()
        monkeypatch.setattr(_log, "_write", some)
        assert [log.append({"number": n}) for n in range(50)].count(True) == 40
        # From half of the room on, what may be dropped is dropped.
        assert not log.append({"number": 99}, droppable=True)
        until = time.monotonic() + 10
        while log.counts.failures < 3 and time.monotonic() < until:
            time.sleep(0.005)
        counts = log.counts
        assert (counts.dropped, counts.refused, counts.waiting) == (1, 10, 40)
        assert counts.error == "No space left on device"
        assert not log.flush(0.05)
        full[0] = False
        assert log.flush()
        assert log.counts.error is None
    assert numbers(tmp_path) == list(range(40))
    found = verify(tmp_path)
    assert (found.lost, found.faults) == (11, ())


def test_a_log_that_cannot_be_ended_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(file: int, content: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log = Log(tmp_path)
    log.flush()
    monkeypatch.setattr(_log, "_write", none)
    log.append({"number": 1})
    with pytest.raises(EvidenceError, match=r"2 records could not be written \(Input/output error"):
        log.close()


def test_a_segment_that_cannot_be_begun_costs_nobody_else_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "_RETRY", 0.01)
    real, others = Log._open, list[int]()

    def failing(log: Log, number: int) -> None:
        if len(others) < 2:
            # It gets the number that was just let go of.
            others.append(os.open(tmp_path / "lock", os.O_RDONLY))
            raise OSError(errno.ENFILE, "Too many open files in system")
        real(log, number)

    with Log(tmp_path, segment_bytes=1) as log:
        assert log.flush()
        monkeypatch.setattr(Log, "_open", failing)
        assert log.append({"number": 0})
        assert log.flush()
    assert len(set(others)) == 2
    for other in others:
        os.close(other)
    assert numbers(tmp_path) == [0]
    assert not verify(tmp_path).faults


def test_what_a_slow_disk_writes_after_the_end_goes_to_the_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "log")
    assert log.flush()
    awake, real = threading.Event(), _log._write

    def slow(file: int, content: bytes) -> None:
        awake.wait(10)
        real(file, content)

    monkeypatch.setattr(_log, "_write", slow)
    log.append({"number": 0})
    with pytest.raises(EvidenceError, match="the disk is too slow"):
        log.close(timeout=0.05)
    others = [os.open(tmp_path / f"other{n}", os.O_CREAT | os.O_RDWR) for n in range(3)]
    with pytest.raises(BusyError):
        Log(tmp_path / "log")
    awake.set()
    log._thread.join(10)
    for other in others:
        assert os.fstat(other).st_size == 0
        os.close(other)
    assert numbers(tmp_path / "log") == [0]
    Log(tmp_path / "log").close()


@pytest.mark.parametrize(
    ("content", "words"),
    [({"x": float("nan")}, "plain values"), ({"x": object()}, "plain values"),
     ({"x": "a" * 70_000}, "more than 65536")],
)  # fmt: skip
def test_what_is_no_record_is_refused_at_once(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    with Log(tmp_path) as log, pytest.raises(EvidenceError, match=words):
        log.append(content)
    with Log(tmp_path) as log, pytest.raises(EvidenceError, match="short word"):
        log.append({}, kind='x","kind":"')


def test_text_of_any_kind_stays_inside_its_record(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        for text in ('a\nb","hash":"' + "0" * 64 + '"}\n', "\u2028\ud800", "é\x00"):
            log.append({"number": text})
    assert verify(tmp_path).faults == ()
    assert len(numbers(tmp_path)) == 3


@pytest.mark.parametrize("lacking", [False, True])
def test_times_are_written_to_their_last_digit(
    lacking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking:
        monkeypatch.setattr(_record, "orjson", None)
    chance, head = random.Random(0), Head(0, "0" * 64)
    for digits in range(12):
        wall, mono = chance.uniform(0, 2e9), chance.uniform(0, 10**digits) * 1e-6
        line, head = _record.encode(
            head, wall=wall, mono=mono, boot="b", kind="decision", content=b"{}"
        )
        found = _record.decode(line)
        assert (found.wall, found.mono, found.hash) == (wall, mono, head.hash)


def test_the_fingerprint_is_of_the_numbers_however_they_lie() -> None:
    numbers = np.arange(12.0).reshape(3, 4)
    for values in (
        *(numbers.astype(kind) for kind in ("<f8", "<f4", "<f2", "u1", "?", ">i4")),
        numbers[:, ::2], numbers[::-1], numbers.T, numbers[:0], np.array(3.0),
    ):  # fmt: skip
        about, octets = fingerprinted([Tensor("x", "FP64", values)])
        assert about == f"x\0FP64{values.shape}".encode()
        assert bytes(octets) == values.tobytes()


def test_whoever_can_write_everything_is_caught_by_an_anchor(tmp_path: Path) -> None:
    folder, anchor = tmp_path / "log", tmp_path / "anchor.jsonl"
    signer = Signer(tmp_path / "key.pem", anchors=(append_to(anchor),), every=5)
    written(folder, 12, committed=signer)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    heads = [c.head for c in read_checkpoints(anchor, signer.public)]
    # One at once, and then each time that five more are on the disk.
    seqs = [head.seq for head in heads]
    assert seqs[0] <= 5
    assert all(5 <= later - one <= 9 for one, later in pairwise(seqs))
    assert len(seqs) >= 2
    found = verify(folder, heads)
    assert (found.anchored, found.faults) == (heads[-1].seq, ())

    shutil.rmtree(folder)
    written(folder, 12)
    assert verify(folder).faults == ()
    assert "not the one that the anchor vouches for" in verify(folder, heads).faults[0]
    last(folder).write_bytes(b"".join(last(folder).read_bytes().splitlines(keepends=True)[:3]))
    gone = f"record {seqs[-1]}: an anchor vouches for it, and it is gone"
    assert gone in verify(folder, heads[-1:]).faults


def test_only_the_key_signs(tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.jsonl"
    signer = Signer(tmp_path / "key.pem", anchors=(append_to(anchor),), every=1)
    signer(Head(3, "a" * 64))
    again = Signer(tmp_path / "key.pem", anchors=())
    assert again.public == signer.public
    other = Signer(tmp_path / "other.pem", anchors=())
    with pytest.raises(EvidenceError, match="line 1 is not signed with the key"):
        read_checkpoints(anchor, other.public)
    with anchor.open("a") as file:
        file.write('{"seq": 4')
    assert len(read_checkpoints(anchor, signer.public)) == 1
    anchor.write_text(anchor.read_text().replace('"seq": 3', '"seq": 4'))
    with pytest.raises(EvidenceError, match="line 1 is not signed"):
        read_checkpoints(anchor, signer.public)
    (tmp_path / "other.pem").write_text("nonsense")
    with pytest.raises(EvidenceError, match="not a private key in PEM"):
        Signer(tmp_path / "other.pem", anchors=())


def test_an_anchor_that_fails_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    signer = Signer(tmp_path / "key.pem", anchors=(append_to(tmp_path / "no" / "where"),), every=1)
    written(tmp_path / "log", 4, committed=signer)
    assert signer.failures > 0
    assert numbers(tmp_path / "log") == [0, 1, 2, 3]


def test_inputs_come_back_and_are_nowhere_in_the_clear(tmp_path: Path) -> None:
    vault = Vault(tmp_path, MASTER)
    inputs = [b"a picture of somebody" * 20, b"", bytes(1000)]
    references = vault.put([*inputs, inputs[0]])
    assert [vault.get(r) for r in references] == [*inputs, inputs[0]]
    assert len(set(references)) == 4
    vault.close()
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"picture" not in kept
    other = Vault(tmp_path, bytes(32))
    with pytest.raises(EvidenceError, match="this master key does not open it"):
        other.get(references[0])
    other.close()


def test_an_erased_input_is_gone_and_the_log_still_verifies(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", MASTER)
    references = vault.put([b"one", b"two"])
    (pack,) = (vault.folder / "packs").iterdir()
    backup = pack.read_bytes()
    with Log(tmp_path / "log") as log:
        for reference in references:
            log.append({"input": reference})
        log.append({"inputs": [references[0]], "why": "asked for"}, kind="erased")
    assert vault.erase(references[0])
    assert not vault.erase(references[0])
    found = verify(tmp_path / "log", vault=vault)
    assert (found.erased, found.faults) == (1, ())
    # What lies there is nothing without the key.
    assert pack.read_bytes() == backup
    with pytest.raises(EvidenceError, match="it was erased"):
        vault.get(references[0])
    assert vault.get(references[1]) == b"two"
    # With the last of its inputs a file goes.
    assert vault.erase(references[1])
    assert not pack.exists()
    vault.close()


def test_inputs_that_were_replaced_or_lost_are_named(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", MASTER)
    references = [vault.put([content])[0] for content in (b"one", b"two", b"three", b"four")]
    references += vault.put([b"five", b"six"])
    with Log(tmp_path / "log") as log:
        for reference in references:
            log.append({"input": reference})
    packs = dict(vault._keys.execute("SELECT reference, pack FROM keys"))
    paths = [vault.folder / "packs" / packs[reference] for reference in references]
    paths[0].write_bytes(paths[1].read_bytes())
    paths[1].unlink()
    vault.erase(references[2])
    # One bit of one of two that share a file.
    content = bytearray(paths[5].read_bytes())
    content[-1] ^= 1
    paths[5].write_bytes(content)
    faults = verify(tmp_path / "log", vault=vault).faults
    assert [fault.split(": ")[1].split(" (")[0] for fault in faults] == [
        "its file was replaced", "its file is gone", "it was erased, and no record says so",
        "its file was replaced",
    ]  # fmt: skip
    with pytest.raises(EvidenceError, match="no reference"):
        vault.get("../../etc/passwd")
    vault.close()
    with pytest.raises(EvidenceError, match="master key has 3 bytes"):
        Vault(tmp_path / "vault", b"abc")


def cli(*words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["evidence", *words])
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        return 2, str(told.exception)
    return told.exit_code, told.stdout


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_vault_that_is_gone_is_a_fault_and_is_not_made(tmp_path: Path, left: str) -> None:
    folder, place = tmp_path / "log", tmp_path / "log" / "vault"
    vault = Vault(place, MASTER)
    references = vault.put([b"one", b"two", b"three"])
    vault.close()
    with Log(folder) as log:
        for reference in references:
            log.append({"input": reference})
        log.append({"inputs": [references[0]], "why": "asked for"}, kind="erased")
    shutil.rmtree(place)
    if left == "an empty folder":
        place.mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, told = cli("verify", str(folder), "--json")
    (fault,) = json.loads(told)["faults"]
    assert code == 1
    assert fault.startswith(f"2 inputs that records name are not there: {place} is no vault")
    code, told = cli("verify", str(folder), "--vault", str(tmp_path / "nope"))
    assert (code, told.count("\n"), "nope is no vault" in told) == (1, 1, True)
    for verb, *words in (("erase", references[1], "--why", "x"), ("retain", "--inputs", "1d")):
        told = cli(verb, str(folder), *words, "--vault", str(tmp_path / "nope"))[1]
        assert "nope is no vault; give" in told
    assert sorted(tmp_path.rglob("*")) == before
    # Without the vault being asked for, the chain alone is looked at.
    assert verify(folder).faults == ()
    with pytest.raises(EvidenceError, match="is no vault"):
        Vault(place)


def test_a_log_that_names_no_input_needs_no_vault(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append({"decision": "pass"})
    assert cli("verify", str(tmp_path))[0] == 0
    assert not (tmp_path / "vault").exists()


def test_the_command_line_verifies_shows_exports_and_erases(tmp_path: Path) -> None:
    folder, anchor = tmp_path / "log", tmp_path / "anchor.jsonl"
    vault = Vault(folder / "vault", MASTER)
    (reference,) = vault.put([b"a face"])
    vault.close()
    signer = Signer(tmp_path / "key.pem", anchors=(append_to(anchor),), every=1)
    with Log(folder, committed=signer) as log:
        log.append({"input": reference, "tenant": "acme", "decision": "block"})
        log.append({"input": None, "tenant": "other\x1b[2J", "decision": "pass"})

    code, told = cli("verify", str(folder), "--anchor", str(anchor), "--key", signer.public)
    assert (code, told.startswith("sound: 4 records, head ")) == (0, True)
    assert "anchored up to record 4" in told
    assert "not anchored" in cli("verify", str(folder))[1]

    code, told = cli("show", str(folder), "--where", "tenant=acme")
    assert (code, told.count("\n")) == (0, 1)
    assert '"decision": "block"' in told
    assert "\x1b" not in cli("show", str(folder))[1]
    assert cli("show", str(folder), "--where", "tenant=nobody") == (0, "no such records\n")
    assert json.loads(cli("show", str(folder), "--json", "--kind", "boot")[1])[0]["seq"] == 1

    part = tmp_path / "part.jsonl"
    assert cli("export", str(folder), "--output", str(part), "--from", "2", "--to", "3")[0] == 0
    assert part.read_bytes() in last(folder).read_bytes()
    assert part.read_bytes().count(b"\n") == 2
    kept, export = part.read_bytes(), ("export", str(folder), "--output", str(part))
    assert "part.jsonl is already there; use --force" in cli(*export)[1]
    assert "no record from 9 on; see" in cli(*export, "--from", "9", "--force")[1]
    assert "no record from 9 to 10; see" in cli(*export, "--from=9", "--to=10", "--force")[1]
    assert part.read_bytes() == kept
    assert cli(*export, "--force")[0] == 0
    assert part.read_bytes() == last(folder).read_bytes()

    assert cli("erase", str(folder), reference, "--why", "asked for")[0] == 0
    assert "was it erased before" in cli("erase", str(folder), reference, "--why", "again")[1]
    code, told = cli("verify", str(folder), "--json")
    assert (code, json.loads(told)["erased"]) == (0, 1)

    last(folder).write_bytes(last(folder).read_bytes().replace(b"block", b"pass_"))
    code, told = cli("verify", str(folder))
    assert (code, told.startswith("record 2 (")) == (1, True)
    assert "was changed: record 2" in cli("show", str(folder))[1]
    assert "nothing is exported" in cli("export", str(folder), "--output", str(tmp_path / "x"))[1]
    assert not (tmp_path / "x").exists()
    assert cli("verify", str(tmp_path))[0] == 2
    assert "belong together" in cli("verify", str(folder), "--key", "ab")[1]
