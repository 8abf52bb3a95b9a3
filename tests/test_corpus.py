"""The corpus: nothing is lost, nothing is half there, and what was found once is tried first."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from withstand import WithstandError, evidence
from withstand.attacks import Checkpoint
from withstand.cli._main import app
from withstand.data import Dataset, from_arrays
from withstand.evaluate import Report, evaluate
from withstand.evaluate._memory import eight_bit
from withstand.evidence import Corpus, Entry, Origin, content_digest
from withstand.models import FunctionModel, TorchModel
from withstand.threat import L2, Box, Budget, Linf, Mask, Threat

ORIGIN = Origin(model="m", data="d", threat={"norm": "linf"}, time="2026-01-01T00:00:00+00:00")
SMOKE: dict[str, Any] = {"preset": "smoke"}


def entry(original: Any = None, label: Any = 0, **changes: Any) -> Entry:
    digest = None if original is None else content_digest(original)
    given = {"answer": 1, "attack": "PGD", "origin": ORIGIN, **changes}
    return Entry(original=digest, label=label, **given)


def filled(path: Path, *, versions: int = 3) -> Corpus:
    corpus = Corpus(path)
    for number in range(versions):
        x = np.full((2, 3), number, np.float32) + np.float32([[0], [0.5]])
        corpus.add(list(x), [entry(label=number), entry(label=number)])
    return corpus


def tree(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "u1", "i8", "?", ">f4"])
@pytest.mark.parametrize("shape", [(), (5,), (1, 3, 2)])
def test_values_come_back_bit_for_bit(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (4, *shape, 8), np.uint8)
    whole = raw.view("u1" if dtype == "?" else dtype)
    x = list((whole > 100 if dtype == "?" else whole)[..., 0])
    corpus = Corpus(tmp_path / "corpus")
    corpus.add(x, [entry(label=i) for i in range(4)])
    back = corpus.read(list(corpus.entries()))
    for one, other in zip(x, back, strict=True):
        assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
        assert other.shape == shape
        swapped = one.astype(one.dtype.newbyteorder("<"))
        assert swapped.tobytes() == other.tobytes()


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    x = np.float32([0.1, 0.2])
    given = entry(
        x, [0.5, 1.0], answer=[True, False], access="scores", distance=1 / 3, kind="flagged",
        answer_8bit=2, survives_8bit=False,
    )  # fmt: skip
    corpus = Corpus(tmp_path / "corpus")
    version = corpus.add([x], [given])
    assert version is not None
    (back,) = corpus.entries()
    digest, shard = content_digest(x), version.shards[0].name
    assert back == replace(given, digest=digest, version=1, shard=shard)
    assert list(corpus.entries(kind="adversarial")) == []


def test_equal_content_is_kept_once_whoever_found_it(tmp_path: Path) -> None:
    x = np.float32([[0.1], [0.2]])
    corpus = Corpus(tmp_path / "corpus")
    first = corpus.add([x[0], x[1], x[0]], [entry(), entry(), entry(attack="FAB")])
    assert first is not None
    assert (first.entries, first.total) == (2, 2)
    again = corpus.add([x[0]], [entry(attack="Square", origin=replace(ORIGIN, model="other"))])
    assert again == first == corpus.head
    other = corpus.add([x[0], x[0]], [entry(label=1), entry(x[1])])
    assert other is not None
    assert (other.number, other.entries, other.total) == (2, 2, 4)
    assert corpus.verify() == ()


def test_versions_never_change_and_each_is_readable(tmp_path: Path) -> None:
    corpus = filled(tmp_path / "corpus", versions=2)
    before, old = tree(corpus.path), corpus.versions()
    filled(corpus.path, versions=4)
    assert tree(corpus.path).items() > before.items()
    assert corpus.versions()[:2] == old
    assert [v.total for v in corpus.versions()] == [2, 4, 6, 8]
    assert [e.label for e in corpus.entries(2)] == [0, 0, 1, 1]
    assert list(corpus.entries(0)) == []
    for number in (5, -1):
        with pytest.raises(WithstandError, match="its newest is 4"):
            list(corpus.entries(number))
    chain = ["", *(v.digest for v in corpus.versions())]
    assert [v.parent for v in corpus.versions()] == chain[:-1]


def test_large_inputs_are_split_so_that_a_shard_fits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("withstand.evidence._shard._BYTES", 100)
    x = np.arange(70, dtype=np.float32).reshape(7, 10)
    corpus = Corpus(tmp_path / "corpus")
    version = corpus.add([*x, np.zeros(3, np.uint8)], [entry() for _ in range(8)])
    assert version is not None
    assert [shard.entries for shard in version.shards] == [2, 2, 2, 1, 1]
    back = corpus.read(list(corpus.entries())[:7])
    assert np.array_equal(np.stack(back), x)


@pytest.mark.parametrize("what", ["npy", "jsonl", "manifest.json", "lost", "gap", "head", "count"])
def test_every_change_is_found(what: str, tmp_path: Path) -> None:
    corpus = filled(tmp_path / "corpus")
    assert corpus.verify() == ()
    folder = corpus.path / ("000003" if what in ("head", "count") else "000002")
    match what:
        case "lost":
            next(folder.glob("*.npy")).unlink()
        case "gap":
            folder.rename(tmp_path / "away")
        case "count":
            file = folder / "manifest.json"
            file.write_text(file.read_text().replace('"total": 6', '"total": 7'))
        case "head":
            (folder / "manifest.json").write_text("{}")
        case _:
            file = next(file for file in folder.iterdir() if file.name.endswith(what))
            raw = bytearray(file.read_bytes())
            # In the time of a manifest, the label of a record, the last value of an array.
            raw[-3 if what == "npy" else raw.find(b"2026" if what[0] == "m" else b"1,")] ^= 1
            file.write_bytes(bytes(raw))
    assert len(faults := corpus.verify()) == 1
    assert "\n" not in faults[0]
    assert str(corpus.path) in faults[0]
    if what == "npy":
        entries = list(corpus.entries())
        corpus.read(entries[:3])
        with pytest.raises(WithstandError, match="damaged"):
            corpus.read(entries)


def test_fields_may_come_and_go_within_a_format(tmp_path: Path) -> None:
    corpus = filled(tmp_path / "corpus", versions=1)
    before = list(corpus.entries())
    manifest, records = (next(corpus.path.rglob(name)) for name in ("manifest.json", "*.jsonl"))
    manifest.write_text(
        manifest.read_text()
        .replace('"model"', '"a": 1, "model"')
        .replace('"total"', '"b": 1, "total"')
    )
    records.write_text(
        records.read_text()
        .replace('"survives_8bit": null', '"colour": 1')
        .replace("}", ', "b": 2}')
    )
    assert list(corpus.entries()) == before
    records.write_text(records.read_text().replace('"attack"', '"attacks"'))
    with pytest.raises(WithstandError, match="damaged; restore"):
        list(corpus.entries())


def test_what_cannot_be_kept_or_read_is_one_line(tmp_path: Path) -> None:
    corpus, x = filled(tmp_path / "corpus", versions=1), np.float32([1])
    for values, wrong, words in [
        (np.array(["text"]), entry(), "convert it to numbers"),
        (x, entry(answer=float("nan")), "finite plain numbers"),
        (x, entry(label=np.int64(3)), "finite plain numbers"),
    ]:
        with pytest.raises(WithstandError, match=words) as caught:
            corpus.add([values], [wrong])
        assert "\n" not in str(caught.value)
    with pytest.raises(WithstandError, match="one entry for each"):
        corpus.add([x, x], [entry()])
    (tmp_path / "file").write_text("")
    with pytest.raises(WithstandError, match="file: Not a directory"):
        Corpus(tmp_path / "file").versions()
    assert Corpus(tmp_path / "nowhere").versions() == ()
    manifest = corpus.path / "000001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(WithstandError, match=r"has format 3, .* reads up to 2; update"):
        list(corpus.entries())


# Each task is a process of its own: where it writes, who it is, how often, and at which of its
# calls of the file system it is killed.
WRITERS = """
import json, os, signal, sys
import numpy as np
from withstand.evidence import Corpus, Entry, Origin, _corpus, _shard

def deadly(call, left):
    def wrapped(*given, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **options)
    return wrapped

def write(path, writer, count, fatal):
    left = [fatal]
    for owner, name in [
        (_shard, "write_file"), (_corpus, "write_file"), (_corpus, "sync_folder"),
        (_corpus.Path, "rename"), (_corpus.shutil, "rmtree"),
    ]:
        setattr(owner, name, deadly(getattr(owner, name), left))
    for number in range(count):
        x = [np.float32([writer, number]), np.float32([-1, -1])]
        entries = [Entry(original=None, label=0, answer=1, attack="A", origin=Origin()) for _ in x]
        Corpus(path).add(x, entries)

tasks, started = json.loads(sys.argv[1]), []
for task in tasks:
    pid = os.fork()
    if not pid:
        write(*task)
        os._exit(0)
    started.append(pid)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]))
"""


def written(*tasks: tuple[Path, int, int, int]) -> list[int]:
    """The exit codes of processes that write at once."""
    words = json.dumps([(str(path), *rest) for path, *rest in tasks])
    done = subprocess.run([sys.executable, "-c", WRITERS, words], capture_output=True, text=True)
    assert done.stderr == ""
    codes: list[int] = json.loads(done.stdout)
    return codes


def test_killed_at_any_moment_it_is_as_it_was_or_whole(tmp_path: Path) -> None:
    # Two files, a manifest, its folder, the rename, the corpus's folder, and the sweep.
    corpora = [filled(tmp_path / str(moment), versions=2) for moment in range(1, 9)]
    before = [tree(corpus.path) for corpus in corpora]
    codes = written(*((corpus.path, 7, 1, n) for n, corpus in enumerate(corpora, 1)))
    assert codes == [-9] * 7 + [0]
    for moment, corpus in enumerate(corpora, 1):
        assert corpus.verify() == ()
        assert tree(corpus.path).items() >= before[moment - 1].items()
        assert len(corpus.versions()) == (2 if moment <= 5 else 3)
        added = corpus.add([np.float32([7, 0]), np.float32([8, 8])], [entry(), entry()])
        assert added is not None
        assert (added.number, added.total) == ((3, 6) if moment <= 5 else (4, 7))
        assert corpus.verify() == ()


def test_what_a_killed_writer_left_is_swept_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = filled(tmp_path / "corpus", versions=1)
    assert written((corpus.path, 7, 1, 3)) == [-9]
    filled(corpus.path, versions=2)
    assert len(list(corpus.path.glob(".new-*"))) == 1
    monkeypatch.setattr("withstand.evidence._corpus._ABANDONED", -1.0)
    filled(corpus.path, versions=3)
    assert not list(corpus.path.glob(".new-*"))
    assert corpus.verify() == ()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus")
    assert written(*((corpus.path, number, 10, 0) for number in range(4))) == [0] * 4
    assert corpus.verify() == ()
    found = {tuple(x.tolist()) for x in corpus.read(list(corpus.entries()))}
    assert found == {(w, n) for w in range(4) for n in range(10)} | {(-1, -1)}
    assert len(list(corpus.entries())) == 41
    assert not list(corpus.path.glob(".new-*"))


# ---- replay ----


def fooled(report: Report) -> np.ndarray:
    return np.array([status == "fooled" for status in report.samples.status])


def test_what_fooled_the_model_once_is_tried_first_and_kept_once(
    digits: Any, tmp_path: Path
) -> None:
    corpus, threat = Corpus(tmp_path / "corpus"), Threat(region=Linf(0.1))
    first = evaluate(digits.model, digits.data, threat, corpus=corpus, **SMOKE)
    assert (first.attacks[0].name, first.attacks[0].samples) == ("Replay", 0)
    assert first.provenance["corpus"] == {"version": 0, "digest": ""}
    hit = fooled(first)
    assert corpus.head is not None
    assert corpus.head.total == hit.sum() > 5
    again = evaluate(digits.model, digits.data, threat, corpus=str(corpus.path), seed=1, **SMOKE)
    replay = again.attacks[0]
    assert (replay.name, replay.samples, replay.fooled) == ("Replay", hit.sum(), hit.sum())
    assert replay.cost.forwards == hit.sum()
    by = np.array(again.samples.attack)
    assert np.array_equal(by == "Replay", hit)
    assert (again.samples.first_success[hit] == 2).all()
    assert again.robust_accuracy == first.robust_accuracy
    assert again.provenance["corpus"]["version"] == 1
    assert again.provenance["corpus"]["digest"] == corpus.versions()[0].digest
    entries = list(corpus.entries(1))
    kept = dict(zip((e.original for e in entries), corpus.read(entries), strict=True))
    for x, x_adv in zip(first.x[hit], first.x_adv[hit], strict=True):
        assert np.array_equal(kept[content_digest(x)], x_adv)
    assert {e.origin.model for e in entries} == {first.provenance["model"]["digest"]}
    assert {e.origin.data for e in entries} == {digits.data.provenance.digest}
    assert {e.attack for e in entries} <= {stage.name for stage in first.attacks}


class Steep(nn.Module):
    """Class 1 where the inputs add up to more than a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.asked: list[bytes] = []

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1) - self.threshold
        return torch.stack([-total, total], 1)


def watched(net: Steep) -> FunctionModel:
    """The network behind labels, which notes what it is asked."""

    def answer(x: Any) -> Any:
        net.asked.extend(row.tobytes() for row in x)
        with torch.no_grad():
            return net(torch.from_numpy(x)).argmax(1).numpy()

    return FunctionModel(answer, returns="labels")


def plane(n: int = 20) -> Dataset:
    """Points of two features; class 1 above a sum of 1, half of them at 0.8 and half at 1.2."""
    first = np.linspace(0.2, 0.6, n)
    second = np.where(np.arange(n) % 2, 1.2, 0.8) - first
    x = np.stack([first, second], 1).astype(np.float32)
    return from_arrays(x, (np.arange(n) % 2).astype(int))


def planted(path: Path, data: Dataset, steps: dict[float, str]) -> Corpus:
    """For the first sample, 0.8 in sum, a kept example at each of these steps in both features."""
    corpus = Corpus(path)
    x = [data.x[0] + np.float32(step) for step in steps]
    corpus.add(x, [entry(data.x[0], access=access) for access in steps.values()])
    return corpus


def test_the_nearest_come_first_only_in_the_region_and_only_with_the_access(
    tmp_path: Path,
) -> None:
    data = plane()
    steps = {0.16: "labels", 0.05: "none", 0.15: "gradients", 0.12: "labels", 0.3: "labels",
             0.08: "labels"}  # fmt: skip
    corpus = planted(tmp_path / "corpus", data, steps)
    net = Steep(1.0)
    threat = Threat(region=Linf(0.2), access="labels", queries=6)
    report = evaluate(watched(net), data, threat, corpus=corpus, **SMOKE)
    shown = [(data.x[0] + np.float32(step)).tobytes() for step in (0.05, 0.08, 0.12)]
    assert net.asked[20:23] == shown
    replay = report.attacks[0]
    assert (replay.samples, replay.fooled, replay.cost.forwards) == (1, 1, 3)
    assert report.samples.attack[0] == "Replay"
    assert report.samples.first_success[0] == report.samples.forwards[0] == 4
    assert report.x_adv[0].tobytes() == shown[-1]
    assert report.samples.distance[0] == pytest.approx(0.12, abs=1e-6)


def test_another_original_or_shape_or_kind_is_not_shown(tmp_path: Path) -> None:
    data = plane()
    corpus = Corpus(tmp_path / "corpus")
    near = data.x[0] + np.float32(0.15)
    wide = np.append(near, near)
    corpus.add(
        [near, wide, near.astype(np.float64), near],
        [
            entry(data.x[0] + 1),
            entry(data.x[0]),
            entry(data.x[0]),
            entry(data.x[0], kind="flagged"),
        ],
    )
    threat = Threat(region=Linf(0.2), access="labels")
    report = evaluate(watched(Steep(1.0)), data, threat, corpus=corpus, **SMOKE)
    assert [stage.samples for stage in report.attacks[:2]] == [0, 0]
    assert "keeps no example" in report.attacks[0].note


def test_a_sample_is_shown_ten_at_most_and_no_more_than_it_may_ask(tmp_path: Path) -> None:
    data = plane()
    steps = {0.001 * k: "labels" for k in range(1, 30)}
    corpus = planted(tmp_path / "corpus", data, steps)
    threat = Threat(region=Linf(0.05), access="labels")
    report = evaluate(watched(Steep(1.0)), data, threat, corpus=corpus, **SMOKE)
    assert [stage.cost.forwards for stage in report.attacks[:2]] == [10, 10]
    for limited, budget in [
        (replace(threat, queries=4), Budget()),
        (threat, Budget(forwards=4)),
    ]:
        report = evaluate(watched(Steep(1.0)), data, limited, corpus=corpus, budget=budget, **SMOKE)
        assert report.attacks[0].cost.forwards == 3
        assert report.samples.forwards.max() == 4
    assert report.samples.status[0] == "budget spent"


def test_equal_samples_share_what_is_kept(tmp_path: Path) -> None:
    data = plane().take([0, 0, 1, 3, 5])
    corpus = planted(tmp_path / "corpus", data, {0.15: "labels"})
    threat = Threat(region=Linf(0.2), access="labels")
    report = evaluate(watched(Steep(1.0)), data, threat, corpus=corpus, **SMOKE)
    assert report.samples.attack[:2] == ("Replay", "Replay")


@pytest.mark.parametrize("step", [0.11, 0.4])
@pytest.mark.parametrize("region", [Linf(0.15), L2(0.21)])
def test_a_kept_example_is_drawn_to_the_edge_of_the_region(
    step: float, region: Any, tmp_path: Path
) -> None:
    data = plane()
    corpus = planted(tmp_path / "corpus", data, {step: "gradients"})
    # A boundary that lies further than what was kept, but within the region.
    moved = TorchModel(Steep(1.05), domain=(0, 1.1))
    report = evaluate(moved, data, Threat(region=region), corpus=corpus, **SMOKE)
    stages = {stage.name: stage for stage in report.attacks}
    # Outside of the region nothing is asked as it was kept.
    assert (stages["Replay"].samples, stages["Replay"].fooled) == (int(step < 0.2), 0)
    assert stages["Stretch"].cost.forwards == stages["Stretch"].fooled == 1
    assert report.samples.attack[0] == "Stretch"
    added = [e for e in corpus.entries() if e.attack == "Stretch"]
    # The sweep has found a smaller change in the meantime, which is what is kept.
    assert added == [] or added[0].access == "gradients"
    assert region.contains(report.x, report.x_adv).all()


def test_what_is_drawn_out_stays_in_the_domain(tmp_path: Path) -> None:
    x = np.float32([[0.2, 0.6], [0.65, 0.65], [0.1, 0.6], [0.6, 0.65]])
    data = from_arrays(x, np.array([0, 1, 0, 1]))
    corpus = planted(tmp_path / "corpus", data, {0.09: "gradients"})
    model = TorchModel(Steep(1.03), domain=(0, 0.7))
    report = evaluate(model, data, Threat(region=Linf(0.15)), corpus=corpus, **SMOKE)
    assert (report.attacks[1].name, report.attacks[1].fooled) == ("Stretch", 1)


def test_the_8_bit_verdict_is_the_models_answer_to_what_a_file_keeps(tmp_path: Path) -> None:
    half = np.full((8, 1, 2, 2), 100 / 255, np.float32)
    half[4:] = 102 / 255
    data = from_arrays(half, (np.arange(8) >= 4).astype(int))
    corpus = Corpus(tmp_path / "corpus")
    # Thresholds between two levels: an example just past one is rounded back, or on.
    thresholds = np.array([100.2, 100.8])
    for threshold in thresholds:
        model = TorchModel(Steep(4 * threshold / 255), domain=(0, 1))
        evaluate(model, data, Threat(region=Linf(2 / 255)), corpus=corpus, **SMOKE)
    entries = list(corpus.entries())
    levels = np.rint(255 * np.stack(corpus.read(entries))).sum((1, 2, 3))
    for one, total in zip(entries, levels, strict=True):
        answer = int(total > 4 * thresholds[one.version - 1])
        assert (one.answer_8bit, one.survives_8bit) == (answer, answer != one.label)
    assert {e.survives_8bit for e in entries} == {True, False}


def test_rounding_to_8_bits_is_what_a_file_does() -> None:
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    once = eight_bit(x, Box(0.0, 1.0))
    file = (255 * x).round().to(torch.uint8)
    assert torch.equal(once, file.float() / 255)
    assert torch.equal(eight_bit(once, Box(0.0, 1.0)), once)
    wide = eight_bit(255 * x, Box(0.0, 255.0))
    assert torch.equal(wide, (255 * x).round())


@pytest.mark.parametrize("after", [2, 3, 5, 8])
def test_an_interrupted_replay_goes_on_with_the_version_it_began_with(
    after: int,
    digits: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_seconds: Callable[[Any], Any],
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    left = [10**9]

    def answer(x: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        with torch.no_grad():
            return digits.net(torch.from_numpy(x)).argmax(1).numpy()

    victim, file = FunctionModel(answer, returns="labels"), tmp_path / "checkpoint"
    threat = Threat(region=Linf(0.1), access="labels", queries=20)
    kept, other = Corpus(tmp_path / "kept"), Corpus(tmp_path / "other")
    rng = np.random.default_rng(0)
    for _ in range(2):
        noise = rng.choice([-0.0999, 0.0999], digits.data.x.shape).astype(np.float32)
        entries = [entry(one, access="labels") for one in digits.data.x]
        kept.add(list((digits.data.x + noise).clip(0, 1)), entries)
    shutil.copytree(kept.path, other.path)
    options: dict[str, Any] = {"batch_size": 16, **SMOKE}
    whole = evaluate(victim, digits.data, threat, corpus=other, **options)
    assert whole.attacks[0].fooled > 0
    # 4 batches are the clean pass.
    left[0] = 4 + after
    with pytest.raises(KeyboardInterrupt):
        evaluate(victim, digits.data, threat, corpus=kept, checkpoint=file, **options)
    left[0] = 10**9
    kept.add(list(whole.x_adv), [entry(one, access="labels") for one in digits.data.x])
    resumed = evaluate(victim, digits.data, threat, corpus=kept, checkpoint=file, **options)
    assert resumed.provenance["corpus"]["version"] == 2
    assert without_seconds(resumed.to_dict()) == without_seconds(whole.to_dict())
    assert np.array_equal(resumed.x_adv, whole.x_adv)


def test_an_example_found_by_more_access_is_no_evidence_for_less(tmp_path: Path) -> None:
    data = plane()
    corpus = planted(tmp_path / "corpus", data, {0.15: "scores"})
    for access, samples in (("labels", 0), ("scores", 1), ("gradients", 1)):
        model = TorchModel(Steep(1.0), domain=(0, 1.1))
        threat = Threat(region=Linf(0.2), access=access)
        copy = shutil.copytree(corpus.path, tmp_path / access)
        report = evaluate(model, data, threat, corpus=copy, **SMOKE)
        assert report.attacks[0].fooled == samples


def test_a_corpus_that_takes_nothing_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("withstand.evidence._corpus.write_file", full)
    threat = Threat(region=Linf(0.2), access="labels")
    report = evaluate(watched(Steep(1.0)), plane(), threat, corpus=tmp_path / "new", **SMOKE)
    assert report.robust_accuracy.value == 0
    assert "not kept: corpus" in report.notes[-1]
    assert "No space left on device; free space" in report.notes[-1]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_checkpoint_of_a_version_that_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    data, file = plane(), tmp_path / "checkpoint"
    corpus = planted(tmp_path / "corpus", data, {0.01: "labels", 0.02: "labels", 0.03: "labels"})
    net = Steep(1.0)

    def answer(x: Any) -> Any:
        if len(net.asked) > 25:
            raise KeyboardInterrupt
        net.asked.extend([b""] * len(x))
        with torch.no_grad():
            return net(torch.from_numpy(x)).argmax(1).numpy()

    threat = Threat(region=Linf(0.2), access="labels")
    victim = FunctionModel(answer, returns="labels")
    options: dict[str, Any] = {"checkpoint": file, **SMOKE}
    with pytest.raises(KeyboardInterrupt):
        evaluate(victim, data, threat, corpus=corpus, **options)
    net.asked.clear()
    shutil.rmtree(corpus.path)
    for other in (corpus, None):
        with pytest.raises(WithstandError, match="start from the beginning"):
            evaluate(victim, data, threat, corpus=other, **options)


CONFIG = """
model: {kind: torch, factory: "model.py:build", domain: [0, 1]}
data: {kind: npz, path: digits.npz, x: x, y: y}
threat: {region: {norm: linf, eps: 0.1}}
evaluate: {preset: smoke, corpus: kept}
"""
MODEL = """
import torch

def build():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 10),
    )
    net.load_state_dict(torch.load("weights.pt"))
    return net
"""


def cli(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_the_command_line_keeps_shows_and_verifies(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    torch.save(digits.net.state_dict(), "weights.pt")
    np.savez("digits.npz", x=digits.data.x, y=digits.data.y)
    with pytest.raises(WithstandError, match="kept is not there"):
        cli("corpus", "list")
    assert cli("evaluate", "--quiet")[0] == 0
    code, text = cli("evaluate", "--quiet", "--json", "--corpus", "kept")
    assert json.loads(text)["attacks"][0]["fooled"] > 5
    assert json.loads(text)["provenance"]["corpus"]["version"] == 1
    corpus = Corpus("kept")
    assert corpus.head is not None
    code, text = cli("corpus", "list", "--json")
    assert [v["digest"] for v in json.loads(text)] == [v.digest for v in corpus.versions()]
    assert corpus.head.digest[:12] in cli("corpus", "list")[1]
    code, text = cli("corpus", "show", "1", "--json")
    assert [e["digest"] for e in json.loads(text)] == [e.digest for e in corpus.entries(1)]
    text = cli("corpus", "show", "--limit", "3")[1]
    assert f"3 of {corpus.head.total} entries" in text
    assert text.count("\n") == 5
    assert cli("corpus", "verify")[1].startswith(f"sound: {corpus.head.total} entries in version")
    assert json.loads(cli("corpus", "verify", "--json")[1])["digest"] == corpus.head.digest
    file = next(corpus.path.rglob("*.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    code, text = cli("corpus", "verify")
    assert (code, text.count("\n")) == (1, 1)
    code, text = cli("corpus", "verify", "--json")
    assert (code, json.loads(text)["sound"]) == (1, False)
    with pytest.raises(WithstandError, match="damaged"):
        cli("evaluate", "--quiet")
    Path("withstand.yaml").write_text(CONFIG.replace(", corpus: kept", ""))
    with pytest.raises(WithstandError, match="add it, or give --corpus"):
        cli("corpus", "list")


def test_what_a_stranger_wrote_steers_no_terminal(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.add([np.float32([1])], [entry(label="[/b]", attack="\x1b[2J", answer="\u202e")])
    text = cli("corpus", "show", "--corpus", str(tmp_path))[1]
    assert "[/b]" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_the_rooms_public_names_are_sorted() -> None:
    names = evidence.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(evidence, name) for name in names)


def test_a_threat_without_a_radius_is_kept_as_plain_json(tmp_path: Path) -> None:
    data, corpus = plane(), Corpus(tmp_path / "corpus")
    threat = Threat(region=Linf(np.inf) & Mask(np.array([True, False])))
    model = TorchModel(Steep(1.0), domain=(0, 1.1))
    report = evaluate(model, data, threat, corpus=corpus, **SMOKE)
    again = evaluate(model, data, threat, corpus=corpus, **SMOKE)
    assert again.attacks[0].fooled == fooled(report).sum() > 0
    assert "Infinity" not in cli("corpus", "list", "--corpus", str(corpus.path), "--json")[1]
