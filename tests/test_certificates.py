"""Certificate files, their replay, the command, and what they say beside attacks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from withstand import WithstandError, certify
from withstand._errors import CertificateError, DataError
from withstand.attacks import Checkpoint
from withstand.certify import (
    Bounds,
    Certificate,
    Certificates,
    SmoothedClassifier,
    Smoothing,
    certificates_schema,
    load_certificates,
    verify,
)
from withstand.cli._main import app
from withstand.config import GateConfig, load_config
from withstand.data import Dataset, from_arrays
from withstand.evaluate import Report, evaluate, join, sandwich
from withstand.gate import judge_report
from withstand.models import Ensemble, FunctionModel, Model, TorchModel, describe
from withstand.threat import L2, Linf, Threat

ROOT = Path(__file__).parents[1]
LINF, EUCLID = Threat(region=Linf(0.05)), Threat(region=L2(0.15))
VOTES = Smoothing(sigma=0.25, draws=500)


def model_of(seed: int = 0, shift: float = 0.0) -> TorchModel:
    """Two classes on the sides of a plane through the middle of the unit cube."""
    net = nn.Sequential(nn.Linear(8, 2))
    normal = torch.randn(8, generator=torch.Generator().manual_seed(seed))
    weight = torch.stack((normal, -normal))
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[0].bias.copy_(-weight.sum(1) / 2 + shift * torch.tensor([1.0, -1.0]))
    return TorchModel(net)


def data_of(model: TorchModel, n: int = 40, seed: int = 0) -> Dataset:
    x = np.random.default_rng(seed).uniform(size=(n, 8)).astype(np.float32)
    return from_arrays(x, model.labels(torch.from_numpy(x)).numpy())


MODEL = model_of()
DATA = data_of(MODEL)


@pytest.fixture(scope="module")
def by_bounds() -> Certificates:
    return certify.certify(MODEL, DATA, LINF, Bounds(bound="ibp"))


@pytest.fixture(scope="module")
def by_votes() -> Certificates:
    return certify.certify(MODEL, DATA, EUCLID, VOTES)


@pytest.fixture(scope="module")
def attacked() -> Report:
    return evaluate(MODEL, DATA, LINF, preset="smoke")


@pytest.fixture(scope="module")
def smoothed() -> Report:
    model = SmoothedClassifier(MODEL, sigma=0.25, draws=8)
    return evaluate(model, DATA, replace(EUCLID, queries=100), preset="smoke")


# Files


@pytest.mark.parametrize("name", ["by_bounds", "by_votes"])
def test_a_file_holds_all_of_it_in_the_published_form(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Certificates = request.getfixturevalue(name)
    path = found.save(tmp_path / "folder" / "certificates.json")
    assert load_certificates(path) == found
    content = json.loads(path.read_text())
    jsonschema.validate(content, certificates_schema())
    published = ROOT / "docs" / "reference" / "certificates.schema.json"
    assert json.loads(published.read_text()) == certificates_schema()
    assert content["model"]["digest"] == describe(MODEL)["digest"]
    assert content["units"] == "raw input, values in [0, 1]"
    for key in ("norm", "eps", "region"):
        assert content["threat"][key] == found.threat[key]
    assert content["engine"]["dtype"] == "float32"
    assert len({row["input"] for row in content["certificates"]}) == len(DATA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "certificates": [{"input": "x"}]}, certificates_schema())


def test_any_change_of_a_file_is_noticed(by_votes: Certificates, tmp_path: Path) -> None:
    path = by_votes.save(tmp_path / "certificates.json")
    text = path.read_text()
    content = json.loads(text)
    content["certificates"][3]["radius"] *= 1.1
    share = json.loads(text)
    share["certified_accuracy"]["value"] = 1.0
    changes = (
        json.dumps(content),
        json.dumps(share),
        text.replace('"sigma": 0.25', '"sigma": 0.5'),
        text.replace('"float32"', '"float64"'),
    )
    for changed in changes:
        assert changed != text
        path.write_text(changed)
        with pytest.raises(DataError, match="was changed"):
            load_certificates(path)
    for wrong in ("", "[]", '{"schema": "urn:other"}', text[:-50]):
        path.write_text(wrong)
        with pytest.raises(DataError, match="no certificates"):
            load_certificates(path)
    with pytest.raises(DataError, match="not there"):
        load_certificates(tmp_path / "none.json")


def test_the_share_allows_for_the_wrong_ones(by_votes: Certificates) -> None:
    share = by_votes.certified_accuracy
    assert share.n == len(DATA)
    assert share.value == by_votes.certified.mean()
    surer = replace(by_votes, settings={**by_votes.settings, "alpha": 0.0})
    assert share.low == pytest.approx(surer.certified_accuracy.low - 0.001)
    assert by_votes.at_least(0.15).value == share.value
    assert by_votes.at_least(100.0).value == 0


# Replay


@pytest.mark.parametrize("name", ["by_bounds", "by_votes"])
def test_a_replay_is_the_same_in_any_order(name: str, request: pytest.FixtureRequest) -> None:
    found: Certificates = request.getfixturevalue(name)
    threat = LINF if name == "by_bounds" else EUCLID
    assert verify(found, MODEL, DATA, threat) == ()
    more = from_arrays(
        np.concatenate((data_of(MODEL, 5, 9).x, DATA.x[::-1])),
        np.concatenate((data_of(MODEL, 5, 9).y, DATA.y[::-1])),
    )
    assert verify(found, MODEL, more, threat, sample=10, seed=3) == ()


def test_equal_inputs_with_other_labels_are_told_apart() -> None:
    x, y = np.concatenate((DATA.x[:3], DATA.x[:3])), DATA.y[:3]
    twice = from_arrays(x, np.concatenate((y, 1 - y)))
    found = certify.certify(MODEL, twice, LINF, Bounds())
    assert found.certified[:3].any()
    assert not found.certified[3:].any()
    assert verify(found, MODEL, twice, LINF) == ()


def test_a_replay_tells_what_is_not_the_same(by_votes: Certificates) -> None:
    forged = list(by_votes.certificates)
    forged[7] = replace(forged[7], radius=9.0)
    (line,) = verify(replace(by_votes, certificates=tuple(forged)), MODEL, DATA, EUCLID)
    assert line.startswith("sample 7: radius is 9.0 in the file")
    (line,) = verify(by_votes, model_of(1), DATA, EUCLID)
    assert line.startswith("another model")
    (line,) = verify(by_votes, MODEL, data_of(MODEL, seed=1), EUCLID)
    assert line.startswith("other inputs: 40 of the 40")
    (line,) = verify(by_votes, MODEL, DATA, Threat(region=L2(0.1)))
    assert line.startswith("another threat: eps is 0.15 there and 0.1 here")
    changed = {**by_votes.settings, "seed": 1}
    assert verify(replace(by_votes, settings=changed), MODEL, DATA, EUCLID)


class StoppedError(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("method", [Smoothing(sigma=0.25, draws=500), Bounds()])
def test_who_is_interrupted_ends_at_the_same_file(
    method: Smoothing | Bounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    data = data_of(MODEL, 70)
    threat = EUCLID if isinstance(method, Smoothing) else LINF
    whole = certify.certify(MODEL, data, threat, method)
    checkpoint, calls = tmp_path / "checkpoint", 0

    def pull(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == (20 if isinstance(method, Smoothing) else 1):
            raise StoppedError

    with pytest.raises(StoppedError):
        certify.certify(MODEL, data, threat, method, checkpoint=checkpoint, progress=pull)
    assert checkpoint.exists()
    monkeypatch.setattr(Checkpoint, "due", False)
    steps: list[int] = []

    def follow(done: int, total: int) -> None:
        steps.append(done)

    again = certify.certify(MODEL, data, threat, method, checkpoint=checkpoint, progress=follow)
    assert again.to_json() == whole.to_json()
    assert steps[0] > 0
    assert not checkpoint.exists()


def test_a_checkpoint_belongs_to_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)

    def pull(done: int, total: int) -> None:
        raise StoppedError

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(StoppedError):
        certify.certify(MODEL, DATA, EUCLID, VOTES, checkpoint=checkpoint, progress=pull)
    with pytest.raises(WithstandError, match="belongs to another"):
        certify.certify(MODEL, DATA, EUCLID, replace(VOTES, seed=1), checkpoint=checkpoint)


# Beside attacks


def test_the_truth_lies_in_between(attacked: Report, by_bounds: Certificates) -> None:
    joined = sandwich(attacked, by_bounds)
    assert joined.certified_accuracy is not None
    # A linear model's bounds are exact.
    assert joined.certified_accuracy.value == attacked.robust_accuracy.value
    assert joined.certified_accuracy.value < attacked.clean_accuracy.value
    assert "the true robust accuracy lies between" in joined.notes[-1]
    assert joined.provenance["certificates"]["digest"] == by_bounds.digest
    assert sandwich(joined, by_bounds).notes == joined.notes


def test_what_has_no_certificate_counts_as_not_proven(
    attacked: Report, by_bounds: Certificates
) -> None:
    some = replace(by_bounds, certificates=by_bounds.certificates[:10])
    share = sandwich(attacked, some).certified_accuracy
    assert share is not None
    assert share.n == 40
    assert share.value == some.certified.sum() / 40


def test_certificates_of_a_smaller_radius_prove_nothing_here(attacked: Report) -> None:
    smaller = certify.certify(MODEL, DATA, Threat(region=Linf(0.01)), Bounds(bound="ibp"))
    share = sandwich(attacked, smaller).certified_accuracy
    assert share is not None
    assert share.value == 0
    larger = certify.certify(MODEL, DATA, Threat(region=Linf(0.08)), Bounds(bound="ibp"))
    share = sandwich(attacked, larger).certified_accuracy
    assert share is not None
    assert 0 < share.value == larger.certified_accuracy.value


def forged(told: Certificates, place: int, **changes: Any) -> Certificates:
    rows = list(told.certificates)
    rows[place] = replace(rows[place], **changes)
    return replace(told, certificates=tuple(rows))


def test_a_fooled_certificate_is_an_error_that_names_the_sample(
    attacked: Report, by_bounds: Certificates
) -> None:
    place = attacked.samples.status.index("fooled")
    wrong = forged(by_bounds, place, outcome="certified", radius=0.05)
    with pytest.raises(
        CertificateError, match=f"^sample {place} was certified within 0.05"
    ) as caught:
        sandwich(attacked, wrong)
    assert attacked.samples.attack[place] in str(caught.value)
    assert "\n" not in str(caught.value)
    # Also where only the sweep for the curve went that far.
    beyond = int(
        np.argmin(np.where(attacked.samples.distance > 0.05, attacked.samples.distance, 9))
    )
    wrong = forged(by_bounds, beyond, outcome="certified", radius=0.5)
    with pytest.raises(CertificateError, match=f"^sample {beyond} "):
        sandwich(attacked, wrong)


def test_a_report_that_contradicts_a_proof_is_red_until_it_does_not(
    attacked: Report, by_bounds: Certificates, tmp_path: Path
) -> None:
    place = attacked.samples.status.index("fooled")
    wrong = forged(by_bounds, place, outcome="certified", radius=0.05)
    attacked.save(tmp_path)
    join(tmp_path, by_bounds, MODEL, DATA)
    for _ in range(2):
        with pytest.raises(CertificateError, match="one of both is wrong"):
            join(tmp_path, wrong, MODEL, DATA)
        told = json.loads((tmp_path / "report.json").read_text())
        assert told["trust"]["verdict"] == "red"
        assert told["certified_accuracy"] is None
        assert not any("no attack contradicts" in note for note in told["notes"])
        (finding,) = [f for f in told["trust"]["findings"] if f["check"] == "attack against proof"]
        assert finding["meaning"].startswith(f"sample {place} was certified within 0.05")
        assert finding["fix"].startswith("verify the certificates")
        assert "attack against proof" in (tmp_path / "report.html").read_text()
    joined = join(tmp_path, by_bounds, MODEL, DATA)
    assert joined.trust == attacked.trust
    assert joined.certified_accuracy is not None


def test_certificates_of_something_else_do_not_count(
    attacked: Report, smoothed: Report, by_bounds: Certificates, by_votes: Certificates
) -> None:
    other = model_of(1)
    cases: list[tuple[Report, Certificates, str]] = [
        (attacked, by_votes, "of the smoothed classifier, and the report is of the model itself"),
        (attacked, certify.certify(other, DATA, LINF, Bounds(bound="ibp")), "another model"),
        (attacked, replace(by_bounds, threat={**by_bounds.threat, "norm": "l2"}), "in l2"),
        (
            attacked,
            replace(by_bounds, threat={**by_bounds.threat, "region": "Linf <= 0.05 and 2 features "
            "are frozen"}),
            "not limited so",
        ),
        (
            attacked,
            certify.certify(MODEL, data_of(MODEL, seed=5), LINF, Bounds(bound="ibp")),
            "other inputs",
        ),
        (smoothed, by_bounds, "another model"),
        (smoothed, replace(by_votes, settings={**by_votes.settings, "sigma": 0.5}), "sigma 0.5"),
    ]  # fmt: skip
    for report, told, words in cases:
        with pytest.raises(DataError, match=words):
            sandwich(report, told)


def test_certificates_of_other_answers_are_of_another_model(
    attacked: Report, by_bounds: Certificates
) -> None:
    """What a forward calls by itself, such as F.relu, is in no digest."""
    place = attacked.samples.status.index("withstood")
    other = 1 - int(DATA.y[place])
    told = forged(by_bounds, place, answer=other, outcome="wrong", radius=0.0)
    words = (
        f"^the certificates are of another model .* sample {place} with {1 - other}, and {other}"
    )
    with pytest.raises(DataError, match=words) as caught:
        sandwich(attacked, told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_said_of_a_model_without_a_digest(several: bool) -> None:
    bare: Model = FunctionModel(lambda x: MODEL.scores(torch.from_numpy(x)).numpy())
    model = SmoothedClassifier(Ensemble([MODEL, bare]) if several else bare, sigma=0.25, draws=8)
    report = evaluate(model, DATA.head(4), replace(EUCLID, access="scores", queries=9))
    told = certify.certify(model, DATA.head(4), EUCLID, VOTES)
    with pytest.raises(DataError, match="has no digest to tell it from another") as caught:
        sandwich(report, told, model)
    assert "\n" not in str(caught.value)


def test_votes_that_were_fooled_are_asked_again(smoothed: Report, by_votes: Certificates) -> None:
    model = SmoothedClassifier(MODEL, sigma=0.25)
    joined = sandwich(smoothed, by_votes, model)
    assert joined.certified_accuracy is not None
    assert 0.3 < joined.certified_accuracy.value <= smoothed.clean_accuracy.value
    side = (smoothed.x_adv - 0.5) @ MODEL.net[0].weight[0].detach().numpy()
    inside = np.where(DATA.y == 0, side, -side)
    fell = np.asarray(smoothed.samples.status) == "fooled"
    # Where an example went farthest over the plane, the smoothed classifier answers otherwise too.
    place = int(np.argmin(np.where(fell, inside, 9)))
    wrong = forged(by_votes, place, outcome="certified", radius=0.15)
    with pytest.raises(CertificateError, match=f"^sample {place} .*by chance"):
        sandwich(smoothed, wrong, model)
    with pytest.raises(DataError, match="give the SmoothedClassifier"):
        sandwich(smoothed, wrong)


def test_the_gate_holds_a_limit_against_it(
    attacked: Report, by_bounds: Certificates, tmp_path: Path
) -> None:
    attacked.save(tmp_path)
    joined = join(tmp_path, by_bounds, MODEL, DATA)
    assert joined.certified_accuracy is not None
    low = joined.certified_accuracy.low
    told = json.loads((tmp_path / "report.json").read_text())
    for limit, outcome in ((low - 0.01, "pass"), (low + 0.01, "inconclusive"), (0.99, "fail")):
        asked = GateConfig.model_validate({"certified_accuracy": {"min": limit}})
        assert judge_report(told, asked).outcome == outcome
    assert "at least, proven" in (tmp_path / "report.html").read_text()


# The command

CONFIG = """
model: {kind: torch, factory: "model.py:build", domain: [0, 1]}
data: {kind: npz, path: data.npz}
threat: {region: {norm: l2, eps: 0.15}, queries: 5}
evaluate: {preset: smoke}
certify: {method: smoothing, sigma: 0.25, draws: 500, radii: [0.1]}
"""
BUILD = """
import torch
from withstand.certify import SmoothedClassifier
from withstand.models import TorchModel

def build():
    net = torch.nn.Sequential(torch.nn.Linear(8, 2))
    weight = torch.load("weight.pt")
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[0].bias.copy_(-weight.sum(1) / 2)
    return SmoothedClassifier(TorchModel(net), sigma=0.25, draws=4)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    (tmp_path / "model.py").write_text(BUILD)
    torch.save(MODEL.net[0].weight.detach(), tmp_path / "weight.pt")
    np.savez(tmp_path / "data.npz", x=DATA.x, y=DATA.y)
    return tmp_path


def ran(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["certify", *words])
    error = (
        ""
        if done.exception is None or isinstance(done.exception, SystemExit)
        else str(done.exception)
    )
    return done.exit_code, done.stdout, done.stderr + error


def test_the_command_certifies_joins_and_verifies(project: Path, smoothed: Report) -> None:
    smoothed.save(project / "withstand-report")
    code, out, error = ran()
    assert code == 0, error
    assert "certified accuracy, at least" in out
    assert "not the model itself" in " ".join(out.split())
    cost = re.search(
        r"besides the 100 that choose its answer: ([\d,]+) forwards", " ".join(out.split())
    )
    assert cost is not None
    assert "<= true <=" in error
    report = json.loads((project / "withstand-report" / "report.json").read_text())
    told = load_certificates(project / "withstand-report" / "certificates.json")
    assert int(cost[1].replace(",", "")) == told.forwards
    assert told.forwards == sum(100 + (c.draws or 0) for c in told.certificates)
    assert report["certified_accuracy"] == told.certified_accuracy.to_dict()
    assert not (project / "withstand-report" / "certify-checkpoint").exists()

    file = "withstand-report/certificates.json"
    code, out, _ = ran("--verify", file, "--sample", "5", "--quiet")
    assert (code, out) == (0, "the same: 5 of 40 certificates, made again\n")
    forged_file = forged(told, 2, radius=5.0).save(project / "forged.json")
    code, out, _ = ran("--verify", str(forged_file))
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("sample 2: radius is 5.0")
    forged_file.write_text(forged_file.read_text().replace('"radius": 5.0', '"radius": 6.0'))
    code, out, _ = ran("--verify", str(forged_file))
    assert (code, out.count("\n")) == (1, 1)
    assert "was changed" in out
    assert ran("--verify", "none.json")[0] == 1
    torch.save(-MODEL.net[0].weight.detach(), project / "weight.pt")
    code, out, _ = ran("--verify", file)
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("another model")


def test_an_evaluation_takes_the_certificates_that_are_there(project: Path) -> None:
    assert ran("--quiet")[0] == 0
    file = project / "withstand-report" / "certificates.json"
    done = CliRunner().invoke(app, ["evaluate"])
    assert done.exit_code == 0, done.output
    share = load_certificates(file).certified_accuracy
    assert f"certified accuracy {share} at least: proven" in " ".join(done.stdout.split())
    told = json.loads((project / "withstand-report" / "report.json").read_text())
    assert told["certified_accuracy"] == share.to_dict()
    whole, told = file.read_text(), load_certificates(file)
    # The middle of the cube lies on the plane: nothing is proven of what is near it.
    forged(told, 3, outcome="certified", radius=9.0, answer=int(DATA.y[3])).save(file)
    threat = CONFIG.replace("eps: 0.15", "eps: 3")
    (project / "withstand.yaml").write_text(threat)
    done = CliRunner().invoke(app, ["evaluate"])
    assert done.exit_code != 0
    assert "one of both is wrong" in str(done.exception)
    content = json.loads((project / "withstand-report" / "report.json").read_text())
    assert content["trust"]["verdict"] == "red"
    assert content["threat"]["eps"] == 3
    (project / "withstand.yaml").write_text(CONFIG)
    file.write_text(whole.replace("L2 <= 0.15", "L2 <= 0.2"))
    done = CliRunner().invoke(app, ["evaluate"])
    assert done.exit_code == 0
    assert "is left out" in done.stderr
    assert "at least: proven" not in done.stdout


def test_the_command_prints_json_alone(project: Path) -> None:
    code, out, _ = ran("--json", "--quiet", "--seed", "7", "--output", "elsewhere")
    assert code == 0
    assert json.loads(out) == json.loads((project / "elsewhere" / "certificates.json").read_text())
    assert json.loads(out)["settings"]["seed"] == 7


@pytest.mark.parametrize(
    ("certify", "words"),
    [
        ("", "certify is missing"),
        ("certify: {method: smoothing}", "sigma is missing"),
        ("certify: {method: bounds, sigma: 0.25}", "only for method smoothing"),
        ("certify: {method: smoothing, sigma: 0.25, bound: ibp}", "only for method bounds"),
        ("certify: {method: smoothing, sigma: 0.25, alpha: 0}", "such as 0.001"),
        ("certify: {method: smoothing, sigma: 0.25, radii: [0]}", "radii above 0"),
        ("certify: {method: smoothing, sigma: 0.25, draws: 5}", "even if all agree"),
    ],
)
def test_a_mistake_in_the_section_is_one_line(project: Path, certify: str, words: str) -> None:
    text = CONFIG[: CONFIG.index("certify:")]
    (project / "withstand.yaml").write_text(text + certify)
    code, _, error = ran()
    assert code
    assert words in error
    assert "\n" not in error.strip()
    assert not (project / "withstand-report" / "certificates.json").exists()


def test_the_section_has_defaults(project: Path) -> None:
    section = load_config(project / "withstand.yaml").certify
    assert section is not None
    assert (section.alpha, section.select, section.sequential) == (0.001, 100, True)


def test_public_names_are_sorted() -> None:
    assert sorted(certify.__all__, key=lambda n: (n[0].islower(), n)) == certify.__all__
    assert all(hasattr(certify, name) for name in certify.__all__)
    assert Certificate.__dataclass_params__.frozen  # type: ignore[attr-defined]
