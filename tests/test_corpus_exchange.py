"""What a guard flagged goes into the corpus, and what others send is believed only on a word."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from withstand._errors import CorpusError, EvidenceError, WithstandError
from withstand.cli._main import app
from withstand.evidence import (
    Corpus,
    Entry,
    Origin,
    Remark,
    card,
    collect,
    content_digest,
    import_exchange,
    read_exchange,
    stale,
    trust,
    write_exchange,
)
from withstand.evidence.log import Break, Log, Query, Tensor, Vault, order, pack, read

MASTER = bytes(range(32))
TIME = "2026-01-01T00:00:00+00:00"
X = [
    np.float32([[0.1, -0.0], [np.nextafter(np.float32(1), np.float32(2)), 3]]),
    np.array([1, 2, 3], np.uint8), np.float16([0.5]), np.array([True, False]), np.float64(7.25),
]  # fmt: skip


def entry(label: Any = 0, **changes: Any) -> Entry:
    origin = Origin(model="m", data="d", threat={"norm": "linf"}, time=TIME)
    given = {"original": None, "answer": 1, "attack": "PGD", "origin": origin, **changes}
    return Entry(label=label, **given)


def filled(path: Path) -> Corpus:
    corpus = Corpus(path)
    corpus.add(X, [entry(label=number, distance=1 / 3) for number in range(len(X))])
    lineage = {"record": 3, "input": "a" * 64}
    corpus.add([np.float32([9, 9])], [entry(None, kind="flagged", lineage=lineage, attack="guard")])
    return corpus


def cli(*words: str, **environment: str) -> tuple[int, str]:
    told = CliRunner(env=environment).invoke(app, ["corpus", *words])
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        assert isinstance(told.exception, WithstandError), told.exception
        return 2, str(told.exception)
    return told.exit_code, told.output


# ---- remarks ----


def test_a_label_is_a_new_version_and_old_ones_stay_as_they_were(tmp_path: Path) -> None:
    corpus = filled(tmp_path / "corpus")
    digest = content_digest(np.float32([9, 9]))
    before = corpus.versions()
    corpus.add([], [], [Remark(entry=digest, label=4, by="ann", time=TIME)])
    corpus.add([], [], [Remark(entry=digest, verdict="attack", by="bob", time=TIME)])
    corpus.add([], [], [Remark(entry=digest, label=[0.5], by="cid", time=TIME)])
    assert corpus.versions()[:2] == before
    assert corpus.verify() == ()

    def said(version: int | None) -> tuple[Any, str]:
        (one,) = corpus.entries(version, kind="flagged")
        return one.label, one.verdict

    found = [said(n) for n in (2, 3, 4, 5)]
    assert found == [(None, ""), (4, ""), (4, "attack"), ([0.5], "attack")]
    # The same input again is the same entry, labelled or not.
    again = corpus.add([np.float32([9, 9])], [entry(None, kind="flagged")])
    assert again == corpus.head
    # An adversarial example's label is that of its original: nobody talks it over.
    corpus.add([], [], [Remark(entry=content_digest(X[1]), label=99, by="eve", time=TIME)])
    assert [one.label for one in corpus.entries(kind="adversarial")] == list(range(len(X)))


@pytest.mark.parametrize("change", ["bit", "lost", "slipped in"])
def test_a_changed_remark_is_found(tmp_path: Path, change: str) -> None:
    corpus = filled(tmp_path / "corpus")
    corpus.add([], [], [Remark(entry="a" * 64, label=4, by="ann")])
    assert corpus.verify() == ()
    file = corpus.path / "000003" / "remarks.jsonl"
    if change == "bit":
        file.write_text(file.read_text().replace('"label": 4', '"label": 5'))
    elif change == "lost":
        file.unlink()
    else:
        (corpus.path / "000002" / "remarks.jsonl").write_text(file.read_text())
        assert [one.label for one in corpus.entries(kind="flagged")] == [None]
    (fault,) = corpus.verify()
    assert "remarks.jsonl" in fault


# ---- from evidence ----


def guarded(folder: Path) -> dict[str, str]:
    """Evidence of some requests, and the references of their inputs."""
    vault = Vault(folder / "vault", MASTER)
    kept = {
        "batch": [Tensor("x", "FP32", np.float32([[1, 2], [3, 4]]))],
        "other": [Tensor("x", "FP32", np.float32([[5, 6]]))],
        "text": [Tensor("x", "BYTES", np.array([b"a"], object))],
        "two": [Tensor("x", "FP32", np.ones(1)), Tensor("y", "FP32", np.ones(1))],
        "imported": [Tensor("x", "FP32", np.float32([[7, 8]]))],
        "passed": [Tensor("x", "FP32", np.float32([[9, 8]]))],
    }
    references = dict(zip(kept, vault.put([pack(one) for one in kept.values()]), strict=True))
    vault.close()
    # The last is what redaction by `hash` leaves.
    answers: dict[str, Any] = {"batch": [[[7, 0.9], [1, 0.1]]], "other": "7" * 64}
    with Log(folder) as log:
        for name, reference in references.items():
            signals = [["maha", 9.0, 5.0, True, ""], ["rate", 0.1, 1.0, False, ""]]
            content = {
                "tenant": "other" if name == "other" else "acme", "model": "m",
                "weights": "" if name == "other" else "w" * 64, "answered": answers.get(name, []),
                "decision": "pass" if name == "passed" else "flag", "input": reference,
                "signals": signals,
            }  # fmt: skip
            log.append(content, kind="imported" if name == "imported" else "decision")
        log.append({"decision": "refuse", "reason": "quota"})
    return references


def test_what_a_guard_flagged_comes_with_its_lineage(tmp_path: Path) -> None:
    references = guarded(tmp_path / "log")
    corpus = Corpus(tmp_path / "corpus")
    vault = Vault(tmp_path / "log" / "vault", MASTER)
    mine = collect(corpus, tmp_path / "log", vault, Query(tenant="acme"))
    assert (mine.requests, mine.inputs, mine.new, mine.unfit, mine.erased) == (3, 2, 2, 2, 0)
    done = collect(corpus, tmp_path / "log", vault)
    assert (done.requests, done.inputs, done.new, done.unfit) == (4, 3, 1, 2)
    entries = list(corpus.entries())
    assert {one.kind for one in entries} == {"flagged"}
    assert [x.tolist() for x in corpus.read(entries)] == [[1, 2], [3, 4], [5, 6]]
    lineage = entries[1].lineage
    assert lineage is not None
    assert (lineage["record"], lineage["row"], lineage["sensors"]) == (2, 1, ["maha"])
    assert (lineage["input"], len(lineage["hash"])) == (references["batch"], 64)
    # The record tells the answer of one row alone, and the model's name where it has no digest.
    assert [one.answer for one in entries] == [7, None, None]
    assert [one.origin.model for one in entries] == ["w" * 64, "w" * 64, "m"]
    walls = {
        place.record.seq: place.record.wall
        for place in read(tmp_path / "log")
        if not isinstance(place, Break)
    }
    for one in entries:
        assert one.lineage is not None
        when = datetime.fromisoformat(one.lineage["time"]).timestamp()
        assert 0 <= walls[one.lineage["record"]] - when < 1
    assert "| m | 1 |" in card(corpus)
    assert corpus.verify() == ()
    vault.close()


def test_erased_inputs_are_told_before_and_after(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    references = guarded(folder)
    corpus = Corpus(tmp_path / "corpus")
    why = {"do": "erase", "why": "asked for"}
    order(folder, folder / "vault", {**why, "inputs": [references["other"]]})
    vault = Vault(folder / "vault", MASTER)
    done = collect(corpus, folder, vault)
    assert (done.inputs, done.erased, done.stale) == (2, 1, 0)
    order(folder, folder / "vault", {**why, "inputs": [references["batch"]]})
    done = collect(corpus, folder, vault)
    assert (done.inputs, done.new, done.erased, done.stale) == (0, 0, 2, 2)
    assert {one.lineage["input"] for one in stale(corpus, folder) if one.lineage} == {
        references["batch"]
    }
    vault.close()


def test_evidence_that_was_changed_gives_nothing(tmp_path: Path) -> None:
    guarded(tmp_path / "log")
    (segment,) = (tmp_path / "log").glob("*.log")
    segment.write_bytes(segment.read_bytes().replace(b'"flag"', b'"pass"', 1))
    vault = Vault(tmp_path / "log" / "vault", MASTER)
    with pytest.raises(EvidenceError, match="was changed"):
        collect(Corpus(tmp_path / "corpus"), tmp_path / "log", vault)
    vault.close()


# ---- exchange ----


def exchanged(tmp_path: Path, form: Any = "safetensors") -> tuple[Path, str]:
    folder = tmp_path / "out"
    told = write_exchange(
        filled(tmp_path / "ours"), folder, tmp_path / "key.pem", form=form, licence="CC-BY-4.0",
        sender="us", card="# Card\n",
    )  # fmt: skip
    return folder, told.key


@pytest.mark.parametrize("form", ["safetensors", "parquet"])
def test_what_is_exchanged_arrives_bit_for_bit_and_is_distrusted(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    folder, key = exchanged(tmp_path, form)
    theirs = Corpus(tmp_path / "theirs")
    theirs.add([X[1]], [entry(label=1)])
    told = import_exchange(theirs, folder, key, "ann")
    assert (told.entries, told.licence, told.sender) == (len(X) + 1, "CC-BY-4.0", "us")
    assert theirs.verify() == ()
    # Nobody uses them, whoever asks: only their own one is there.
    assert [one.label for one in theirs.entries()] == [1]
    found = [one for one in theirs.entries(distrusted=True) if one.origin.imported]
    ours = list(Corpus(tmp_path / "ours").entries())
    for one, other, x, y in zip(
        found, ours, theirs.read(found), Corpus(tmp_path / "ours").read(ours), strict=True
    ):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        assert (one.label, one.attack, one.kind, one.distance) == (
            other.label, other.attack, other.kind, other.distance,
        )  # fmt: skip
        assert one.origin == replace(other.origin, imported=told.digest)
        assert one.lineage is None
    version = theirs.head
    assert version is not None
    trust(theirs, told.digest[:8], "bob")
    assert len(list(theirs.entries())) == len(X) + 2
    # What was decided later changes nothing for whoever asks for the version before.
    assert len(list(theirs.entries(version.number))) == 1
    trust(theirs, told.digest, "bob", trusted=False)
    assert len(list(theirs.entries())) == 1
    with pytest.raises(CorpusError, match="imported before"):
        import_exchange(theirs, folder, key, "ann")
    # What was imported is not ours to pass on.
    trust(theirs, told.digest, "bob")
    assert write_exchange(theirs, tmp_path / "on", tmp_path / "other.pem").entries == 1


def tamper(folder: Path, what: str) -> None:
    manifest = folder / "manifest.json"
    match what:
        case "manifest":
            manifest.write_text(manifest.read_text().replace("CC-BY-4.0", "CC0-1.0"))
        case "signature":
            (folder / "manifest.sig").write_text("00" * 64)
        case "records":
            file = folder / "entries.jsonl"
            file.write_text(file.read_text().replace('"label": 2', '"label": 3'))
        case "values":
            file = folder / "00000.safetensors"
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        case "lost":
            (folder / "00001.safetensors").unlink()


@pytest.mark.parametrize(
    ("what", "words"),
    [("manifest", "manifest.json is not signed"), ("signature", "manifest.json is not signed"),
     ("records", r"entries\.jsonl was changed"), ("values", r"00000\.safetensors was changed"),
     ("lost", r"no file '00001\.safetensors'")],
)  # fmt: skip
def test_tampering_is_named_and_nothing_is_imported(tmp_path: Path, what: str, words: str) -> None:
    folder, key = exchanged(tmp_path)
    read_exchange(folder, key)
    tamper(folder, what)
    corpus = Corpus(tmp_path / "theirs")
    with pytest.raises(CorpusError, match=words):
        import_exchange(corpus, folder, key, "ann")
    assert corpus.versions() == ()


def resigned(tmp_path: Path, change: Any) -> tuple[Path, str]:
    """An exchange whose own sender has made it badly."""
    from withstand.evidence._exchange import _sha256
    from withstand.evidence.log._crypto import private_key

    folder, key = exchanged(tmp_path)
    change(folder)
    told = json.loads((folder / "manifest.json").read_text())
    for name in told["files"]:
        if (folder / name).exists():
            told["files"][name] = _sha256(folder / name)
    raw = json.dumps(told).encode()
    (folder / "manifest.json").write_bytes(raw)
    (folder / "manifest.sig").write_text(private_key(tmp_path / "key.pem").sign(raw).hex())
    return folder, key


def rewritten(old: str, new: str, name: str = "entries.jsonl") -> Any:
    def change(folder: Path) -> None:
        file = folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [(rewritten('"file": "00000.safetensors"', '"file": "../../x"'), "no signed file '../../x'"),
     (lambda folder: tamper(folder, "values"), "does not have the values it names"),
     (lambda folder: (folder / "00000.safetensors").write_bytes(b"nonsense"), "cannot be read"),
     (rewritten('"kind": "flagged"', '"kind": "own"'), "of kind 'own'"),
     (rewritten('"entries": 6', '"entries": 7', "manifest.json"), "6 entries of 7"),
     (rewritten('"entries.jsonl"', '"../entries.jsonl"', "manifest.json"), "has no file"),
     (rewritten('"attack": "PGD"', '"attack": 5'), "an entry that is none"),
     (rewritten('"model": "m"', '"model": 7'), "an entry that is none"),
     (rewritten('"distance": 0.3333333333333333', '"distance": "1"'), "an entry that is none"),
     (rewritten('"distance": 0.3333333333333333', '"distance": true'), "an entry that is none"),
     (rewritten('"distance": 0.3333333333333333', '"distance": -1'), "an entry that is none"),
     (rewritten('"distance": 0.3333333333333333', '"distance": 1' + "0" * 400), "that is none"),
     (rewritten('"access": "none"', '"access": "evil"'), "an entry that is none"),
     (rewritten('"original": null', '"original": 5'), "an entry that is none"),
     (rewritten('"survives_8bit": null', '"survives_8bit": "x"'), "an entry that is none"),
     (rewritten('"threat": {"norm": "linf"}', '"threat": 1'), "an entry that is none"),
     (rewritten('"threat": {"norm": "linf"}', '"threat": {"eps": NaN}'), "an entry that is none"),
     (rewritten('"label": null', '"label": NaN'), "an entry that is none"),
     (rewritten('"label": null', '"label": 9223372036854775808'), "an entry that is none"),
     (rewritten('"label": null', '"label": {"a": 1}'), "an entry that is none"),
     (rewritten('"label": null', '"label": [[1]]'), "an entry that is none"),
     (rewritten('"verdict": ""', '"verdict": "sure"'), "an entry that is none"),
     (rewritten('"time": "2', '"time": "x'), "an entry that is none"),
     (rewritten('"format": 1', '"format": 9', "manifest.json"), "reads up to 1; update")],
)  # fmt: skip
def test_a_signature_is_no_leave_to_do_anything(tmp_path: Path, change: Any, words: str) -> None:
    folder, key = resigned(tmp_path, change)
    corpus = Corpus(tmp_path / "theirs")
    with pytest.raises(CorpusError, match=words):
        import_exchange(corpus, folder, key, "ann")
    assert corpus.versions() == ()


def test_what_a_sender_tells_of_our_own_evidence_is_not_kept(tmp_path: Path) -> None:
    told = rewritten('"lineage": null', '"lineage": {"input": "a", "fingerprint": "f"}')
    folder, key = resigned(tmp_path, told)
    corpus = Corpus(tmp_path / "theirs")
    import_exchange(corpus, folder, key, "ann")
    assert [one.lineage for one in corpus.entries(distrusted=True)] == [None] * 6


def test_only_the_key_that_was_told_counts(tmp_path: Path) -> None:
    folder, _ = exchanged(tmp_path)
    other = write_exchange(Corpus(tmp_path / "none"), tmp_path / "on", tmp_path / "other.pem")
    for key in (other.key, "", "zz"):
        with pytest.raises(CorpusError, match="not signed with the key"):
            read_exchange(folder, key)
    with pytest.raises(CorpusError, match="a folder that is not there yet"):
        write_exchange(Corpus(tmp_path / "none"), tmp_path / "on", tmp_path / "other.pem")


# ---- the card ----


def test_the_card_counts_what_is_there_and_acts_upon_nothing(tmp_path: Path) -> None:
    folder, key = exchanged(tmp_path)
    corpus = Corpus(tmp_path / "theirs")
    odd = "<script>|`x`\n# [a](b)"
    corpus.add([X[0], X[1]], [entry(attack=odd), entry(None, kind="flagged")])
    told = import_exchange(corpus, folder, key, odd)
    text = card(corpus, title="Digits", licence="MIT")
    assert text.startswith("# Digits\n\n- Licence: MIT\n- Entries: 8\n- Version: 2, digest ")
    for line in (
        "| adversarial, imported, not trusted | 5 |", "| adversarial | 1 |", "| flagged | 1 |",
        "| flagged, imported, not trusted | 1 |", "| PGD | 6 |", "| none | 2 |",
        "| float32 (2, 2) | 2 |", "| not looked at | 2 |",
    ):  # fmt: skip
        assert line in text, line
    assert f"| `{told.digest[:16]}` | 6 | `{key[:16]}` | us | CC-BY-4.0 | no |" in text
    assert "<script" not in text
    assert not any(line.startswith("# [") for line in text.splitlines())
    assert card(Corpus(tmp_path / "empty")).count("Entries: 0") == 1


def test_the_command_line_goes_the_whole_way(tmp_path: Path) -> None:
    guarded(tmp_path / "log")
    ours, theirs = ("--corpus", str(tmp_path / "ours")), ("--corpus", str(tmp_path / "theirs"))
    evidence = ("add", "--evidence", str(tmp_path / "log"))
    assert "no master key" in cli(*evidence, *ours, "--secrets", str(tmp_path / "no"))[1]
    code, told = cli(*evidence, *ours, WITHSTAND_MASTER=MASTER.hex())
    assert (code, told.splitlines()[0]) == (0, "added: 3 new of 3 inputs in 4 requests")
    assert "2 requests are left out: they hold text or image files (BYTES) or several" in told
    digest = json.loads(cli("show", *ours, "--json")[1])[0]["digest"]
    labelled = ("label", digest[:10], *ours, "--by", "ann")
    assert "give --label" in cli(*labelled)[1]
    assert "write JSON" in cli(*labelled, "--label", "cat")[1]
    assert cli(*labelled, "--label", '"cat"', "--verdict", "attack")[0] == 0
    assert "0 flagged entries begin" in cli("label", "zz", *ours, "--label", "1")[1]
    assert json.loads(cli("show", *ours, "--json")[1])[0]["label"] == "cat"

    out = tmp_path / "out"
    sent = ("export", str(out), "--key", str(tmp_path / "key.pem"), *ours, "--licence", "MIT")
    assert "is 'csv'; it is" in cli(*sent, "--format", "csv")[1]
    code, told = cli(*sent, "--kind", "flagged")
    key = told.strip().rpartition(" ")[2]
    assert (code, len(key)) == (0, 64)
    assert "Licence: MIT" in (out / "card.md").read_text()
    code, told = cli("import", str(out), "--key", key, *theirs)
    assert (code, told.splitlines()[0]) == (0, "imported: 3 entries, MIT; not trusted yet")
    name = told.split()[-1]
    assert list(Corpus(tmp_path / "theirs").entries()) == []
    assert cli("trust", name, *theirs)[0] == 0
    assert [e.label for e in Corpus(tmp_path / "theirs").entries()] == ["cat", None, None]
    assert cli("trust", name, "--revoke", *theirs)[0] == 0
    assert "0 imports begin" in cli("trust", "zz", *theirs)[1]
    assert cli("verify", *theirs)[0] == 0
    assert "imported" in cli("show", *theirs)[1]
    assert cli("card", *theirs, "--output", str(tmp_path / "card.md"))[0] == 0
    assert cli("card", *theirs)[1] == (tmp_path / "card.md").read_text()
    shutil.rmtree(out)
    assert cli("import", str(out), "--key", key, *theirs)[0] == 2
