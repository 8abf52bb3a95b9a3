"""The guard's journal: who asked what can be proved later, and nobody waits for it."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarding import Model, v2_body
from writers import journal_until_killed

from withstand._errors import ConfigError, EvidenceError
from withstand.evidence.log import (
    Break,
    Log,
    Record,
    Tensor,
    Vault,
    _log,
    pack,
    read,
    unpack,
    verify,
)
from withstand.guard import (
    Call,
    EvidenceJournal,
    Guard,
    Line,
    Redaction,
    Request,
    Sensor,
    Signal,
)
from withstand.guard.wire import Inference, Named

MASTER = bytes(range(32))


class Above(Sensor):
    """Flags inputs whose first number is above a half."""

    name, action = "above", "tag"

    def look(self, call: Call) -> Signal:
        score = float(call.asked.inputs[0].values.ravel()[0])
        return Signal(self.name, score, 0.5, score > 0.5)


def asked(*values: Any, name: str = "x", **parameters: Any) -> Inference:
    found = []
    for number, one in enumerate(values):
        array = np.asarray(one)
        datatype = "BYTES" if array.dtype == object else "FP64"
        label = name if len(values) == 1 else f"{name}{number}"
        found.append(Named(name=label, datatype=datatype, values=array, parameters=parameters))
    return Inference(id="", inputs=tuple(found), parameters={})


@contextmanager
def journal(folder: Path, **options: Any) -> Iterator[EvidenceJournal]:
    made = EvidenceJournal(Log(folder), Vault(folder / "vault", MASTER), **options)
    try:
        yield made
    finally:
        made.close()


def decisions(folder: Path) -> list[Record]:
    found = [place.record for place in read(folder) if not isinstance(place, Break)]
    return [record for record in found if record.kind == "decision"]


def kept(folder: Path, record: Record) -> list[Tensor]:
    vault = Vault(folder / "vault", MASTER)
    try:
        return unpack(vault.get(record.content["input"]))
    finally:
        vault.close()


def until(condition: Callable[[], object], most: float = 20.0) -> None:
    end = time.monotonic() + most
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_guard_leaves_evidence_that_holds(tmp_path: Path) -> None:
    with journal(tmp_path) as notes:
        line = Line(mode="enforce", upstream=Model(), sensors=(Above(),))
        guard = Guard({"m": line}, journal=notes)
        for first in (0.0, 0.9, 0.1):
            body = v2_body([[first, 1, 2, 3]])
            answer = asyncio.run(guard.answer(Request("POST", "/v2/models/m/infer", [], body)))
            assert answer.status == 200
        assert notes.flush()
        counts = notes.counts
        assert (counts.written, counts.inputs_kept, counts.waiting) == (4, 1, 0)
    found = {record.content["decision"]: record for record in decisions(tmp_path)}
    assert "input" not in found["pass"].content
    (tensor,) = kept(tmp_path, found["flag"])
    assert (tensor.name, tensor.datatype) == ("x", "FP32")
    np.testing.assert_array_equal(tensor.values, np.float32([[0.9, 1, 2, 3]]))
    assert len(found["flag"].content["fingerprint"]) == 64
    vault = Vault(tmp_path / "vault")
    assert verify(tmp_path, vault=vault).faults == ()
    vault.close()


@pytest.mark.parametrize("values", [
    np.arange(6, dtype="<f4").reshape(2, 3), np.arange(4, dtype="<u2"), np.zeros((0, 2), "<f8"),
    np.array([[True], [False]]), np.float16([0.5]),
    np.array([[b"", b"a\x00b"], [b"caf\xc3\xa9", b"d" * 300]], object),
])  # fmt: skip
def test_inputs_come_back_bit_for_bit_whatever_their_names(values: np.ndarray[Any, Any]) -> None:
    datatype = "BYTES" if values.dtype == object else "FP32"
    given = [Tensor("__metadata__", datatype, values), Tensor("../x\n", "FP64", np.ones(1))]
    first, second = unpack(pack(given))
    assert (first.name, first.datatype, second.name) == ("__metadata__", datatype, "../x\n")
    assert (first.values.dtype, first.values.shape) == (values.dtype, values.shape)
    assert first.values.tolist() == values.tolist()


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(100), pack([])[:-1] + b" "])
def test_what_is_no_input_is_not_read_as_one(content: bytes) -> None:
    if content[:2] == pack([])[:2] and content[8:9] == b"{":
        content = content.replace(b"withstand", b"somewhere")
    with pytest.raises(EvidenceError, match="not what a guard keeps"):
        unpack(content)


@pytest.mark.parametrize(
    ("inputs", "share", "named"),
    [("none", 1.0, []), ("flagged", 1.0, ["flag"]), ("all", 1.0, ["flag", "pass"]),
     ("all", 0.0, ["flag"])],
)  # fmt: skip
def test_inputs_are_kept_of_those_that_were_named(
    tmp_path: Path, inputs: str, share: float, named: list[str]
) -> None:
    with journal(tmp_path, inputs=inputs, share=share) as notes:
        for decision in ("flag", "pass"):
            given = {"decision": decision}
            assert notes.note(given, flagged=decision == "flag", asked=asked([1.0]))
            assert given == {"decision": decision}
    found = decisions(tmp_path)
    assert sorted(r.content["decision"] for r in found) == ["flag", "pass"]
    assert sorted(r.content["decision"] for r in found if "input" in r.content) == named


def test_the_flagged_are_kept_when_there_is_no_room_for_the_benign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = Vault.put

    def slow(self: Vault, inputs: list[bytes]) -> list[str]:
        gate.wait(20)
        return real(self, inputs)

    monkeypatch.setattr(Vault, "put", slow)
    with journal(tmp_path, inputs="all", most=8) as notes:
        for number in range(6):
            assert notes.note({"n": number}, flagged=False, asked=asked([1.0]))
        for number in range(6, 14):
            assert notes.note({"n": number}, flagged=True, asked=asked([1.0]))
        counts = notes.counts
        assert (counts.inputs_dropped, counts.inputs_refused, counts.inputs_waiting) == (2, 4, 8)
        gate.set()
        assert notes.flush()
        assert notes.counts.inputs_kept == 8
    found = {r.content["n"]: r.content for r in decisions(tmp_path)}
    # Every decision has its record, and says what became of its input.
    assert sorted(found) == list(range(14))
    lost = [n for n, content in sorted(found.items()) if content.get("input_lost") == "no room"]
    assert lost == [4, 5, 10, 11, 12, 13]
    assert all("input" in content for n, content in found.items() if n not in lost)


def test_bytes_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Vault, "put", lambda *_: gate.wait(20) and [])
    with journal(tmp_path, inputs="all", most_bytes=1000) as notes:
        text = np.array([b"a" * 600], object)
        assert notes.note({}, flagged=False, asked=asked(text))
        assert notes.counts.inputs_dropped == 1
        for _ in range(2):
            notes.note({}, flagged=True, asked=asked(text))
        assert (notes.counts.inputs_waiting, notes.counts.inputs_refused) == (1, 1)
        gate.set()


def test_a_vault_that_fails_takes_no_record_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Vault, inputs: list[bytes]) -> list[str]:
        raise EvidenceError("vault cannot be written: No space left on device")

    monkeypatch.setattr(Vault, "put", full)
    with journal(tmp_path) as notes:
        assert notes.note({"n": 1}, flagged=True, asked=asked([1.0]))
        assert notes.flush()
        assert notes.counts.inputs_failed == 1
    assert decisions(tmp_path)[0].content == {"n": 1, "input_lost": "vault"}
    assert "No space left" in caplog.text


def test_it_says_when_the_log_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "_RETRY", 0.01)
    full, real = [True], _log._write

    def some(file: int, content: bytes) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, content)

    with journal(tmp_path, required=True) as notes:
        assert notes.flush()
        monkeypatch.setattr(_log, "_write", some)
        line = Line(mode="enforce", upstream=Model(), sensors=(Above(),))
        guard = Guard({"m": line}, journal=notes)
        request = Request("POST", "/v2/models/m/infer", [], v2_body([[0.1, 1, 2, 3]]))
        assert not notes.failing
        assert asyncio.run(guard.answer(request)).status == 200
        until(lambda: notes.failing)
        assert asyncio.run(guard.answer(request)).status == 503
        full[0] = False
        until(lambda: not notes.failing)
        assert asyncio.run(guard.answer(request)).status == 200
    assert len(decisions(tmp_path)) == 3


def test_killed_at_any_moment_every_input_that_is_named_is_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    rng = random.Random(0)
    for _ in range(4):
        ours, theirs = context.Pipe(duplex=False)
        writer = context.Process(target=journal_until_killed, args=(tmp_path, theirs))
        writer.start()
        theirs.close()
        assert ours.poll(60)
        time.sleep(rng.uniform(0, 0.05))
        writer.kill()
        writer.join()
        while ours.poll():
            try:
                promised = ours.recv()
            except EOFError:
                break
        Log(tmp_path).close()
        vault = Vault(tmp_path / "vault")
        found = verify(tmp_path, [promised], vault)
        vault.close()
        assert found.faults == ()
        assert found.anchored == promised.seq
    assert found.unclean == 4
    assert found.erased > 0
    named = [r.content["input"] for r in decisions(tmp_path)]
    assert len(set(named)) == len(named) >= 40


def test_a_score_that_is_no_number_costs_no_record(tmp_path: Path) -> None:
    with journal(tmp_path) as notes:
        assert notes.note(
            {"signals": [["d", float("nan"), float("inf")]]}, flagged=True, asked=None
        )
        assert not notes.note({"x": "a" * 70_000}, flagged=True, asked=None)
        assert notes.counts.malformed == 1
    assert decisions(tmp_path)[0].content["signals"] == [["d", "nan", "inf"]]


def test_skipped_records_are_counted_and_never_flagged_ones(tmp_path: Path) -> None:
    with journal(tmp_path, records=0.25) as notes:
        for number in range(400):
            assert notes.note({"n": number}, flagged=number % 4 == 0, asked=None)
        skipped = notes.counts.skipped
    found = [record.content["n"] for record in decisions(tmp_path)]
    assert len(found) + skipped == 400
    assert set(range(0, 400, 4)) <= set(found)
    # 300 benign ones at a quarter: five standard deviations.
    assert abs(len(found) - 100 - 75) < 38


def test_records_are_redacted(tmp_path: Path) -> None:
    rules = [
        Redaction(field="tenant", how="drop"), Redaction(field="key", how="hash"),
        Redaction(field="signals", how="truncate", keep=1), Redaction(field="absent", how="hash"),
    ]  # fmt: skip
    with journal(tmp_path, redactions=rules, secret=b"s" * 32) as notes:
        for key in ("one", "two", "one"):
            notes.note({"tenant": "acme", "key": key, "signals": [1, 2]}, flagged=True, asked=None)
    first, second, third = [record.content for record in decisions(tmp_path)]
    assert (set(first), first["signals"]) == ({"key", "signals"}, [1])
    assert first["key"] == third["key"] != second["key"]
    assert len(first["key"]) == 64
    assert b"acme" not in b"".join(p.read_bytes() for p in tmp_path.glob("*.log"))


def test_inputs_are_redacted(tmp_path: Path) -> None:
    rules = [
        Redaction(field="inputs.x0", how="drop"),
        Redaction(field="inputs.x1", how="truncate", keep=2),
        Redaction(field="inputs.x2", how="hash"), Redaction(field="inputs.age", how="hash"),
    ]  # fmt: skip
    text = np.array([b"name", b"other", b"name"], object)
    with journal(tmp_path, redactions=rules) as notes:
        given = asked(np.ones((1, 3)), np.arange(8.0).reshape(2, 2, 2), text)
        notes.note({}, flagged=True, asked=given)
        frame = asked(np.arange(6.0).reshape(2, 3), columns=("a", "age", "b"))
        notes.note({}, flagged=True, asked=frame)
        # Nothing to take the first of: it must not stop what comes behind it.
        notes.note({}, flagged=True, asked=asked(np.float64(1), np.float64(2), np.float64(3)))
    first, second, third = [kept(tmp_path, record) for record in decisions(tmp_path)]
    assert [one.name for one in first] == ["x1", "x2"]
    np.testing.assert_array_equal(first[0].values, [[0, 1], [4, 5]])
    digests = first[1].values.tolist()
    assert digests[0] == digests[2] != digests[1]
    assert b"name" not in digests
    assert second[0].columns == ("a", "b")
    np.testing.assert_array_equal(second[0].values, [[0, 2], [3, 5]])
    assert [one.name for one in third] == ["x1", "x2"]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"share": 2}, "share of benign traffic is 2"), ({"records": -1}, "records of benign"),
     ({"vault": None}, "there is no vault")],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    vault = None if "vault" in options else Vault(tmp_path / "vault", MASTER)
    with Log(tmp_path) as log, pytest.raises(ConfigError, match=words):
        EvidenceJournal(log, vault, **{k: v for k, v in options.items() if k != "vault"})
    if vault is not None:
        vault.close()
    for field, how, words in (
        ("x", "blur", "drop, hash or truncate"), ("id", "drop", "make a record"),
        ("inputs.", "drop", "give another field"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            Redaction(field=field, how=how)  # type: ignore[arg-type]
