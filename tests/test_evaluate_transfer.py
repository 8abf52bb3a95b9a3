"""An attacker who sees nothing of the model: examples made on surrogates, shown once each."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from networks import fitted_to_digits
from processes import withstand
from rich.console import Console
from torch import Tensor, nn

from withstand import WithstandError
from withstand.attacks import Checkpoint, TransferPGD, craft, run
from withstand.config import parse_config
from withstand.data import Dataset, from_arrays
from withstand.evaluate import Report, evaluate, from_config, page, report_schema, show
from withstand.models import FunctionModel, TorchModel
from withstand.threat import (
    L0,
    L1,
    L2,
    Budget,
    Linf,
    MultiLabel,
    Region,
    Regression,
    Targeted,
    Threat,
)

PLAIN, BESIDE = TransferPGD(steps=10), TransferPGD(steps=10, variance=2)


def unseen(region: Region, **options: Any) -> Threat:
    return Threat(region=region, access="none", **options)


THREAT = unseen(Linf(0.12))


@pytest.fixture(scope="module")
def other() -> TorchModel:
    """Another network for the same digits."""
    net = fitted_to_digits(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), seed=1
    )
    return TorchModel(net)


@pytest.fixture(scope="module")
def report(digits: Any, other: TorchModel) -> Report:
    surrogates = {"mlp": other, "copy": TorchModel(deepcopy(digits.net))}
    return evaluate(digits.model, digits.data, THREAT, preset="smoke", surrogates=surrogates)


def _counting(net: nn.Module, returns: Any) -> tuple[FunctionModel, list[bytes]]:
    """A black box, and every input that it was asked about."""
    asked: list[bytes] = []

    def answer(x: Any) -> Any:
        asked.extend(row.tobytes() for row in x)
        with torch.no_grad():
            scores = net(torch.from_numpy(x)).numpy()
        return scores.argmax(1) if returns == "labels" else scores

    return FunctionModel(answer, returns=returns), asked


def _fooled(report: Report) -> np.ndarray:
    return np.array([status == "fooled" for status in report.samples.status])


@pytest.mark.parametrize("region", [Linf(0.12), L2(0.8)])
def test_with_the_model_itself_as_surrogate_it_is_the_white_box(
    region: Region, digits: Any
) -> None:
    twin = TorchModel(deepcopy(digits.net))
    report = evaluate(digits.model, digits.data, unseen(region), preset="smoke", surrogates=[twin])
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    right = digits.model.labels(x) == y
    expected = torch.zeros_like(right)
    for stage, attack in zip(report.attacks, (PLAIN, BESIDE), strict=True):
        white = run(attack, digits.model, x, y, Threat(region=region)).success & right
        assert stage.samples == int((right & ~expected).sum())
        assert stage.fooled == int((white & ~expected).sum())
        expected |= white
    assert 5 < int(expected.sum()) < int(right.sum())
    assert np.array_equal(_fooled(report), expected.numpy())
    first = np.array([name.startswith("transfer from") for name in report.samples.attack])
    assert np.array_equal(first, _fooled(report))
    made = craft(PLAIN, digits.model, x, y, Threat(region=region)).numpy()
    by_plain = report.samples.first_success == 2
    assert np.array_equal(report.x_adv[by_plain], made[by_plain])
    assert region.contains(report.x, report.x_adv).all()


@pytest.mark.parametrize("returns", ["labels", "scores"])
def test_each_example_is_one_question_and_nothing_else_is_asked(
    returns: str, digits: Any, other: TorchModel
) -> None:
    victim, asked = _counting(digits.net, returns)
    report = evaluate(victim, digits.data, THREAT, preset="smoke", surrogates=[other])
    look = 60 if returns == "scores" else 0
    shown = [stage.samples for stage in report.attacks]
    assert shown[0] > shown[1] > 0
    assert len(asked) == look + 60 + sum(shown)
    assert len(set(asked[look + 60 : look + 60 + shown[0]])) == shown[0]
    assert len(set(asked[look + 60 + shown[0] :])) == shown[1]
    assert [stage.cost.forwards for stage in report.attacks] == shown
    assert report.cost.forwards == len(asked)
    assert report.cost.backwards == 0
    right = np.array([status != "already wrong" for status in report.samples.status])
    by_first = np.array([name == report.attacks[0].name for name in report.samples.attack])
    assert np.array_equal(report.samples.forwards, 1 + right + (right & ~by_first))
    fooled = _fooled(report)
    assert np.array_equal(report.samples.first_success[fooled], report.samples.forwards[fooled])
    answers = other_answers(digits.net, report.x_adv)
    assert np.array_equal(report.samples.adversarial_answer, answers)


def other_answers(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = net(torch.from_numpy(x)).argmax(1).numpy()
    return found


class Guarded(TorchModel):
    """A model whose gradients nobody may ask for."""

    def gradient(self, x: Tensor, objective: Any) -> Any:
        raise AssertionError("the victim was asked for a gradient")

    def jacobian(self, x: Tensor, outputs: Tensor) -> Any:
        raise AssertionError("the victim was asked for gradients")


def test_the_victim_is_never_asked_for_gradients(
    digits: Any, report: Report, other: TorchModel
) -> None:
    surrogates = {"mlp": other, "copy": TorchModel(deepcopy(digits.net))}
    guarded = evaluate(
        Guarded(digits.net), digits.data, THREAT, preset="smoke", surrogates=surrogates
    )
    assert np.array_equal(guarded.x_adv, report.x_adv)
    assert guarded.robust_accuracy == report.robust_accuracy


def test_all_together_come_first_and_then_each(report: Report) -> None:
    names = [(s.source, s.settings["variance"]) for s in report.attacks]
    among = ["all 2 surrogates", "mlp", "copy"]
    assert names == [(source, variance) for source in among for variance in (0, 2)]
    assert report.attacks[2].name == "transfer from mlp (TransferPGD)"
    assert report.attacks[3].title == "transfer from mlp (TransferPGD, ce, 10, variance 2)"
    assert all(stage.access == "none" for stage in report.attacks)
    mlp, copy = report.surrogates
    assert copy.accuracy == report.clean_accuracy
    # Each step is a forward and a backward, in the ensemble 2 and 1; a 11th judges the last point.
    alone = [11 * report.attacks[i].samples + 31 * report.attacks[i + 1].samples for i in (0, 2, 4)]
    assert mlp.backwards >= alone[0] + alone[1] > mlp.backwards - 1000
    assert copy.forwards >= 2 * alone[0] + alone[2] > copy.forwards - 3000


def test_the_report_says_whose_examples_they_are_and_what_they_do_not_say(
    report: Report, digits: Any
) -> None:
    assert report.trust.verdict == "amber"
    finding = next(f for f in report.trust.findings if f.check == "surrogates")
    assert (finding.value, finding.verdict) == (2, "amber")
    assert "nothing of an attacker with a better surrogate" in finding.meaning
    content = json.loads(report.to_json())
    jsonschema.validate(content, report_schema())
    assert [s["name"] for s in content["surrogates"]] == ["mlp", "copy"]
    told = content["provenance"]["surrogates"]
    assert told["copy"]["digest"] == content["provenance"]["model"]["digest"]
    assert told["mlp"]["net"] == "Sequential"
    assert content["threat"]["techniques"][2]["name"] == "Black-Box Transfer"
    html = page({"": report})
    assert "<h3>Surrogates</h3>" in html
    assert "transfer from mlp (TransferPGD, ce, 10)" in html
    assert "shown once each" in html
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    show(report, console)
    text = console.export_text()
    assert "who sees nothing of the model" in text
    assert "transfer from mlp" in text
    assert max(map(len, text.splitlines())) <= 80
    assert not report.curve


def test_a_poor_surrogate_is_no_evidence(digits: Any) -> None:
    torch.manual_seed(0)
    blind = TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    report = evaluate(digits.model, digits.data, THREAT, preset="smoke", surrogates=[blind])
    finding = next(f for f in report.trust.findings if f.check == "surrogates' lag")
    assert finding.verdict == report.trust.verdict == "red"


def test_neither_batch_nor_order_decides(digits: Any, other: TorchModel) -> None:
    def found(data: Dataset, batch: int) -> Report:
        surrogates = [other, TorchModel(deepcopy(digits.net))]
        threat = unseen(Linf(0.1))
        return evaluate(
            digits.model, data, threat, preset="smoke", surrogates=surrogates, batch_size=batch,
        )  # fmt: skip

    data, order = digits.data.head(40), np.random.default_rng(0).permutation(40)
    base = found(data, 40)
    mixed = found(data.take(order), 17)
    assert base.provenance["batch_invariant"]
    assert np.array_equal(mixed.x_adv, base.x_adv[order])
    for name in ("forwards", "first_success", "distance"):
        values = getattr(base.samples, name)
        assert np.array_equal(getattr(mixed.samples, name), values[order])
    assert np.array_equal(found(data, 40).x_adv, base.x_adv)


def test_an_interrupted_evaluation_goes_on_to_the_same_report(
    digits: Any,
    other: TorchModel,
    without_seconds: Callable[[Any], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    left, calls, death = [10**9], [0], [KeyboardInterrupt]

    def answer(x: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise death[0]
        calls[0] += 1
        return other_answers(digits.net, x)

    victim, file = FunctionModel(answer, returns="labels"), tmp_path / "checkpoint"
    options: dict[str, Any] = {
        "preset": "smoke", "batch_size": 16, "surrogates": [other, digits.model]
    }  # fmt: skip
    whole = evaluate(victim, digits.data, THREAT, **options)
    questions, fewer = calls[0], {**options, "surrogates": [other]}
    for after, death[0] in ((5, KeyboardInterrupt), (7, OSError), (11, KeyboardInterrupt)):
        calls[0], left[0] = 0, after
        with pytest.raises((KeyboardInterrupt, WithstandError)):
            evaluate(victim, digits.data, THREAT, checkpoint=file, **options)
        left[0] = 10**9
        with pytest.raises(WithstandError, match="belongs to another"):
            evaluate(victim, digits.data, THREAT, checkpoint=file, **fewer)
        calls[0] = after
        resumed = evaluate(victim, digits.data, THREAT, checkpoint=file, **options)
        assert without_seconds(resumed.to_dict()) == without_seconds(whole.to_dict()), after
        assert np.array_equal(resumed.x_adv, whole.x_adv), after
        # Besides the clean pass nothing was asked twice.
        assert calls[0] == questions + 4, after


def test_limits_on_questions_and_time_hold(digits: Any, other: TorchModel) -> None:
    options: dict[str, Any] = {"preset": "smoke", "surrogates": [other, other]}
    near = unseen(Linf(0.05), queries=3)
    report = evaluate(digits.model, digits.data, near, **options)
    assert report.samples.forwards.max() == 3
    assert "budget spent" not in report.samples.status
    budget = Budget(forwards=3)
    report = evaluate(digits.model, digits.data, unseen(Linf(0.05)), budget=budget, **options)
    assert report.samples.forwards.max() == 3
    assert "budget spent" in report.samples.status
    budget = Budget(seconds=1e-4)
    report = evaluate(digits.model, digits.data, THREAT, budget=budget, **options)
    assert set(report.samples.status) <= {"budget spent", "already wrong"}
    assert report.samples.forwards.max() == 1


@pytest.mark.parametrize("access", ["gradients", "scores", "labels"])
def test_surrogates_add_to_an_attacker_who_asks(
    access: Any, digits: Any, other: TorchModel
) -> None:
    threat, options = Threat(region=Linf(0.12), access=access, queries=150), {"preset": "smoke"}
    alone = evaluate(digits.model, digits.data, threat, **options)
    joined = evaluate(digits.model, digits.data, threat, surrogates=[other], **options)
    kinds = [bool(stage.source) for stage in joined.attacks]
    if access == "gradients":
        # Before the two stages that doubt what the others have found.
        assert kinds == [False] * (len(alone.attacks) - 2) + [True, True, False, False]
        checks = {finding.check for finding in joined.trust.findings}
        assert "transfer beats gradients" in checks
    else:
        assert kinds[:3] == [False, True, True]
        assert joined.attacks[1].fooled > 0
        assert joined.robust_accuracy.value <= alone.robust_accuracy.value
    assert joined.samples.forwards.max() <= 150


@pytest.mark.parametrize(
    "region",
    [L1(4.0), Linf(0.2) & L2(0.8), L2(0.8) & Linf(0.2), Linf(np.linspace(0.05, 0.2, 60))],
)
def test_examples_lie_in_the_region_and_fool(
    region: Region, digits: Any, other: TorchModel
) -> None:
    twin = TorchModel(deepcopy(digits.net))
    report = evaluate(digits.model, digits.data, unseen(region), preset="smoke", surrogates=[twin])
    assert _fooled(report).any()
    assert region.contains(report.x, report.x_adv).all()
    wrong = other_answers(digits.net, report.x_adv) != digits.data.y
    already = np.array([status == "already wrong" for status in report.samples.status])
    assert np.array_equal(wrong, _fooled(report) | already)


def test_other_goals(digits: Any, other: TorchModel) -> None:
    threat = unseen(Linf(0.25), goal=Targeted(3))
    report = evaluate(digits.model, digits.data, threat, preset="smoke", surrogates=[digits.model])
    answers = other_answers(digits.net, report.x_adv)
    assert _fooled(report).any()
    assert (answers[_fooled(report)] == 3).all()
    torch.manual_seed(0)
    x, line, many = torch.rand(40, 6), nn.Linear(6, 1), nn.Linear(6, 3)
    data = from_arrays(x.numpy(), line(x)[:, 0].detach().numpy(), values=True)
    reach = 0.05 * float(line.weight.detach().abs().sum())
    for tolerance, robust in ((1.05 * reach, 1.0), (0.3 * reach, 0.0)):
        threat = unseen(Linf(0.05), goal=Regression(tolerance))
        model = TorchModel(line)
        report = evaluate(model, data, threat, preset="smoke", surrogates=[TorchModel(line)])
        assert report.robust_accuracy.value == pytest.approx(robust, abs=0.1)
    tags, threat = (
        from_arrays(x.numpy(), (many(x) > 0).float().numpy()),
        unseen(Linf(0.2), goal=MultiLabel()),
    )
    report = evaluate(TorchModel(many), tags, threat, preset="smoke", surrogates=[TorchModel(many)])
    assert report.robust_accuracy.value < 0.7


def test_probabilities_of_surrogates_are_taken_as_logits(digits: Any) -> None:
    soft = TorchModel(nn.Sequential(deepcopy(digits.net), nn.Softmax(1)))
    plain = TorchModel(deepcopy(digits.net))
    found = [
        evaluate(digits.model, digits.data, THREAT, preset="smoke", surrogates=[surrogate])
        for surrogate in (soft, plain)
    ]
    assert abs(_fooled(found[0]).sum() - _fooled(found[1]).sum()) <= 2


def _bad(digits: Any, other: TorchModel) -> dict[str, tuple[Any, Any, str]]:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(63, 10))
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    box, _ = _counting(digits.net, "scores")
    return {
        "none": ([], THREAT, r"surrogates=\[...\].*access to labels.*train_surrogate"),
        "raw module": ([other.net], THREAT, "Sequential.*wrap it first"),
        "no gradients": ({"box": box}, THREAT, "surrogate box gives scores"),
        "another domain": ({"a": TorchModel(other.net, domain=(0, 255))}, THREAT, r"\[0, 255\]"),
        "another shape": ({"flat": TorchModel(flat)}, THREAT, "surrogate flat: .*shape"),
        "other classes": ({"few": TorchModel(few)}, THREAT, "4 scores, the model with 10;"),
        "norm": ([other], unseen(L0(5)), "linf, l2 and l1"),
    }


NAMES = (
    *("none", "raw module", "no gradients", "another domain", "another shape"),
    *("other classes", "norm"),
)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_line_with_the_fix(name: str, digits: Any, other: TorchModel) -> None:
    surrogates, threat, words = _bad(digits, other)[name]
    with pytest.raises(WithstandError, match=words) as caught:
        evaluate(digits.model, digits.data, threat, preset="smoke", surrogates=surrogates)
    assert "\n" not in str(caught.value)


def test_a_victim_that_crashes_is_not_fooled(digits: Any, other: TorchModel) -> None:
    known = {row.tobytes() for row in digits.data.x}

    def answer(x: Any) -> Any:
        with torch.no_grad():
            scores = digits.net(torch.from_numpy(x)).numpy()
        scores[[row.tobytes() not in known for row in x]] = np.nan
        return scores

    victim = FunctionModel(answer)
    report = evaluate(victim, digits.data, THREAT, preset="smoke", surrogates=[other])
    assert report.fooling_rate.value == 0


CONFIG = """
model: {kind: sklearn, factory: "models.py:victim", domain: [0, 1]}
surrogates:
  - {kind: torch, factory: "models.py:own", weights: own.pt}
  - {kind: torch, factory: "models.py:own", weights: own.pt, domain: [0, 1]}
data: {kind: sklearn, name: digits, limit: 30}
threat: {access: none, region: {norm: linf, eps: 0.15}}
evaluate: {preset: smoke}
"""
MODELS = """
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from withstand.data import load_sklearn

def victim():
    data = load_sklearn("digits")
    return KNeighborsClassifier(5).fit(data.x[900:].reshape(-1, 64), data.y[900:])

def own():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
"""


@pytest.fixture
def project(other: TorchModel, tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    torch.save(other.net.state_dict(), tmp_path / "own.pt")
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    return tmp_path


def _withstand(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return withstand(*words, folder=folder, environment={"COLUMNS": "100"})


def test_the_command_line_reads_surrogates(project: Path) -> None:
    done = _withstand(project, "evaluate", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [s["name"] for s in told["surrogates"]] == ["own.pt 1", "own.pt 2"]
    assert [s["source"] for s in told["attacks"][::2]] == [
        "all 2 surrogates", "own.pt 1", "own.pt 2"
    ]  # fmt: skip
    assert told["fooling_rate"]["value"] > 0.1
    assert told["cost"]["backwards"] == 0


def test_the_command_line_says_what_is_missing(project: Path) -> None:
    config = project / "withstand.yaml"
    text = config.read_text()
    config.write_text(text[: text.index("surrogates")] + text[text.index("data:") :])
    done = _withstand(project, "evaluate", "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    assert "surrogates: in withstand.yaml" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "weights: own.pt}",
            "weights: lost.pt}",
            r"surrogates\[0\]: weights lost.pt are not there",
        ),
        ("own.pt, domain", "own.pt, doman", r"unknown key 'surrogates\[1\].doman', did you mean"),
    ],
)
def test_a_mistake_names_the_surrogate(old: str, new: str, words: str, project: Path) -> None:
    import yaml

    with pytest.raises(WithstandError, match=words) as caught:
        from_config(parse_config(yaml.safe_load(CONFIG.replace(old, new))), project)
    assert "\n" not in str(caught.value)


def test_a_configuration_gives_surrogates_by_name(project: Path) -> None:
    import yaml

    raw = yaml.safe_load(CONFIG)
    raw["surrogates"][1]["domain"] = [0, 2]
    setup = from_config(parse_config(raw), project)
    assert list(setup.surrogates) == ["own.pt 1", "own.pt 2"]
    assert np.max(setup.surrogates["own.pt 2"].domain.upper) == 2
    assert from_config(parse_config({**raw, "surrogates": []}), project).surrogates == {}
