"""The main job: true figures, an honest word about them, and no loss on interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from withstand import WithstandError, attacks
from withstand._errors import DataError, ModelError, ThreatError
from withstand.attacks import Checkpoint
from withstand.data import Dataset, from_arrays
from withstand.evaluate import evaluate
from withstand.evaluate._measures import severity_of, ssim
from withstand.models import FunctionModel, TorchModel, sklearn_model
from withstand.threat import L0, L1, L2, Budget, Linf, MultiLabel, Regression, Targeted, Threat

THREAT = Threat(region=Linf(0.1))


def test_every_figure_follows_from_the_examples(digits: Any) -> None:
    report = evaluate(digits.model, digits.data, THREAT, preset="smoke")
    with torch.no_grad():
        clean = digits.net(torch.from_numpy(report.x)).argmax(1).numpy() == digits.data.y
        robust = digits.net(torch.from_numpy(report.x_adv)).argmax(1).numpy() == digits.data.y
    assert report.clean_accuracy.value == clean.mean()
    assert report.robust_accuracy.value == (clean & robust).mean() < 0.8
    assert report.fooling_rate.value == (clean & ~robust).sum() / clean.sum()
    assert report.fooling_rate.n == clean.sum()
    assert THREAT.region.contains(report.x, report.x_adv).all()
    fooled = [s == "fooled" for s in report.samples.status]
    assert fooled == list(clean & ~robust)
    assert all(bool(name) == hit for name, hit in zip(report.samples.attack, fooled, strict=True))
    assert sum(stage.fooled for stage in report.attacks) == sum(fooled)
    at = next(p for p in report.curve if p.eps == 0.1)
    assert at.robust_accuracy.value == report.robust_accuracy.value
    values = [p.robust_accuracy.value for p in report.curve]
    assert values[0] == report.clean_accuracy.value
    assert values == sorted(values, reverse=True)
    assert sum(s.clean_accuracy.n for s in report.classes) == 60
    # Besides the ledgers: one call on 4 and a first look at 60 answers, two gradients of each right
    # one, the answers to the examples, and what the diagnosis has asked.
    spent = report.samples.forwards.sum() + 64 + 2 * clean.sum() + sum(fooled)
    assert report.cost.forwards == spent + report.trust.cost.forwards
    checks, whole = report.trust.cost, report.cost
    share = (checks.forwards + checks.backwards) / (whole.forwards + whole.backwards)
    assert 0 < share < 0.2


@pytest.mark.parametrize("which", ["scaled", "quantised"])
def test_masked_gradients_do_not_hide_a_weak_model(
    which: str, digits: Any, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    report = evaluate(model, digits.data, Threat(region=Linf(0.3)), preset="standard")
    assert report.robust_accuracy.value < 0.02
    checks = {finding.check: finding for finding in report.trust.findings}
    if which == "quantised":
        assert checks["zero gradients"].verdict == "red"
        assert report.trust.verdict == "red"
    else:
        assert checks["saturated cross-entropy"].value > 0.3
        assert checks["zero gradients"].verdict == "green"
        losses = [stage.settings.get("loss") for stage in report.attacks]
        assert "tempered" in losses
        assert "ce" not in losses


def test_saturated_logits_hide_nothing_from_entropy_at_a_temperature(
    scaled: TorchModel, digits: Any
) -> None:
    threat = Threat(region=Linf(0.1))
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)

    def fooled(model: TorchModel, loss: str) -> Tensor:
        return attacks.run(attacks.APGD(loss=loss, steps=20), model, x, y, threat).success

    by_temperature = fooled(scaled, "tempered")
    assert torch.equal(by_temperature, fooled(digits.model, "tempered"))
    assert fooled(scaled, "ce").sum() < 0.7 * by_temperature.sum()
    assert by_temperature.sum() >= 0.95 * fooled(digits.model, "ce").sum()


def test_a_sound_model_raises_no_alarm(digits: Any) -> None:
    report = evaluate(digits.model, digits.data, Threat(region=Linf(0.03)), preset="smoke")
    alarms = [f.check for f in report.trust.findings if f.verdict != "green"]
    assert alarms == ["wide interval"]


class Interrupted(TorchModel):
    """A model behind which the process dies after some gradients."""

    left = 10**9

    def gradient(self, x: Tensor, objective: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().gradient(x, objective)


@pytest.mark.parametrize("after", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (31, 60))])
def test_an_interrupted_evaluation_goes_on_to_the_same_report(
    after: int,
    digits: Any,
    without_seconds: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    data, file = digits.data.head(32), tmp_path / "checkpoint"
    options: dict[str, Any] = {"preset": "smoke", "seed": 3, "batch_size": 16}
    model = Interrupted(digits.net)
    whole = evaluate(model, data, THREAT, **options)
    model.left = after
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, data, THREAT, checkpoint=file, **options)
    assert file.exists()
    model.left = 10**9
    resumed = evaluate(model, data, THREAT, checkpoint=file, **options)
    assert without_seconds(resumed.to_dict()) == without_seconds(whole.to_dict())
    assert np.array_equal(resumed.x_adv, whole.x_adv)
    assert not file.exists()


def test_a_checkpoint_that_does_not_fit_is_refused(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    model, file = Interrupted(digits.net), tmp_path / "checkpoint"
    model.left = 30
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, digits.data, THREAT, preset="smoke", checkpoint=file)
    model.left = 10**9
    with pytest.raises(WithstandError, match="belongs to another"):
        evaluate(model, digits.data, THREAT, preset="smoke", seed=1, checkpoint=file)
    whole = file.read_bytes()
    for damaged in (whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"nonsense"):
        file.write_bytes(damaged)
        with pytest.raises(WithstandError, match="damaged; delete it"):
            evaluate(model, digits.data, THREAT, preset="smoke", checkpoint=file)
        assert file.read_bytes() == damaged


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda net: nn.Sequential(net, nn.Softmax(1)), "probabilities"),
        (lambda net: net, None),
    ],
    ids=["probabilities", "logits"],
)
def test_probabilities_are_noticed_and_attacked_as_logits(
    make: Any, words: str | None, digits: Any
) -> None:
    threat = Threat(region=Linf(0.08))
    report = evaluate(TorchModel(make(digits.net)), digits.data, threat, preset="smoke")
    plain = evaluate(digits.model, digits.data, threat, preset="smoke")
    assert abs(report.robust_accuracy.value - plain.robust_accuracy.value) <= 1 / 60
    assert [words in note for note in report.notes] == [True] if words else not report.notes


@pytest.mark.parametrize("squash", [False, True], ids=["logit", "probability"])
def test_a_single_output_is_two_classes(squash: bool) -> None:
    torch.manual_seed(0)
    head = nn.Linear(4, 1)
    with torch.no_grad():
        head.bias.copy_(-head.weight.sum() / 2)
    net = nn.Sequential(head, nn.Sigmoid()) if squash else head
    x = torch.rand(50, 4)
    y = (head(x)[:, 0] > 0).long()
    assert 5 < int(y.sum()) < 45
    data = from_arrays(x.numpy(), y.numpy())
    report = evaluate(TorchModel(net), data, Threat(region=Linf(0.1)), preset="smoke")
    # A linear model falls exactly where its margin is within eps times the L1 norm of its weights.
    weight = head.weight.detach().abs().sum()
    margin = head(x)[:, 0].detach().abs() / weight
    box = float((margin > 0.1).float().mean())
    assert report.robust_accuracy.value >= box - 1e-9
    assert report.robust_accuracy.value < 1
    assert "one probability" in report.notes[0] if squash else "one logit" in report.notes[0]


def test_regression_and_multilabel_goals() -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 6)
    line = nn.Linear(6, 1)
    data = from_arrays(x.numpy(), line(x)[:, 0].detach().numpy(), values=True)
    reach = 0.05 * float(line.weight.detach().abs().sum())
    for tolerance, robust in ((1.05 * reach, 1.0), (0.3 * reach, 0.0)):
        threat = Threat(region=Linf(0.05), goal=Regression(tolerance))
        report = evaluate(TorchModel(line), data, threat, preset="smoke")
        assert report.robust_accuracy.value == pytest.approx(robust, abs=0.1)
    many = nn.Linear(6, 3)
    tags = from_arrays(x.numpy(), (many(x) > 0).float().numpy())
    threat = Threat(region=Linf(0.2), goal=MultiLabel())
    assert evaluate(TorchModel(many), tags, threat, preset="smoke").robust_accuracy.value < 0.7


def test_targets_black_boxes_and_other_norms(digits: Any) -> None:
    net, data = digits.net, digits.data

    def scores(x: Any) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    def labels(x: Any) -> Any:
        return scores(x).argmax(1)

    black = FunctionModel(scores)
    blind = FunctionModel(labels, returns="labels")
    for model, threat, used in (
        (digits.model, Threat(region=Linf(0.2), goal=Targeted(3)), "APGD"),
        (digits.model, Threat(region=L2(1.0)), "APGD"),
        (digits.model, Threat(region=L1(4.0)), "APGD"),
        (digits.model, Threat(region=L0(6)), "SigmaZero"),
        (black, Threat(region=Linf(0.2), queries=200), "Square"),
        (black, Threat(region=L0(8), queries=500), "SparseRS"),
        (blind, Threat(region=L2(2.0), queries=300), "CGBA"),
        (digits.model, Threat(region=Linf(0.2), access="labels"), "RayS"),
    ):
        report = evaluate(model, data, threat, preset="smoke")
        assert any(s.name == used and s.fooled for s in report.attacks), (used, report.attacks)
        assert threat.region.contains(report.x, report.x_adv).all()
        if threat.queries:
            assert report.samples.forwards.max() <= threat.queries
        if threat.access != "gradients" or model.access != "gradients":
            assert report.cost.backwards == 0


@pytest.mark.parametrize(("region", "least"), [(L1(4.0), 0.5), (L0(6), 0.6)], ids=["l1", "l0"])
def test_by_labels_more_is_tried_in_every_norm_than_noise(
    region: Any, least: float, digits: Any
) -> None:
    data = digits.data.head(40)
    threat = Threat(region=region, access="labels")
    report = evaluate(digits.model, data, threat, preset="smoke")
    names = [stage.name for stage in report.attacks]
    assert names == ["RandomNoise", "TableWalk", "TableWalk"]
    assert report.fooling_rate.value > least
    assert report.attacks[0].fooled < 0.5 * report.samples.status.count("fooled")
    assert threat.region.contains(report.x, report.x_adv).all()
    red = [finding.check for finding in report.trust.findings if finding.verdict == "red"]
    assert red == []
    limited = evaluate(digits.model, data, replace(threat, queries=30), preset="smoke")
    assert limited.samples.forwards.max() <= 30


def test_a_class_that_nothing_begins_in_is_no_robustness(digits: Any) -> None:
    x = torch.from_numpy(digits.data.x)
    noise = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with digits.model.held():
        answer = digits.model.labels(x).numpy()
        seen = digits.model.labels(torch.cat((noise, noise.round(), 1 - x)))
    # Nobody has an input of the wanted class, and nothing is taken for it by chance.
    target = int(seen.bincount(minlength=10).argmin())
    data = digits.data.take(np.flatnonzero((answer != target) & (digits.data.y != target)))
    threat = Threat(region=L2(2.0), access="labels", goal=Targeted(target), queries=200)
    report = evaluate(digits.model, data, threat, preset="smoke")
    finding = next(f for f in report.trust.findings if f.check == "unfinished samples")
    assert (finding.verdict, report.trust.verdict) == ("red", "red")


@pytest.mark.parametrize("preset", ["standard", "thorough"])
def test_queries_that_run_out_are_no_sign_of_hidden_gradients(preset: Any, digits: Any) -> None:
    threat = Threat(region=Linf(0.1), queries=300 if preset == "standard" else 1000)
    report = evaluate(digits.model, digits.data.head(30), threat, preset=preset)
    told = {f.check: f.verdict for f in report.trust.findings}
    assert told.get("never fooled", "green") == told.get("curve plateau", "green") == "green"


@pytest.mark.parametrize("other", [L2(0.6), L1(4.0)])
def test_balls_may_come_in_any_order(other: Any, digits: Any) -> None:
    region = Linf(0.2) & other
    assert (other & Linf(0.2)).describe() == region.describe()
    threat = Threat(region=region)
    report = evaluate(digits.model, digits.data.head(16), threat, preset="standard")
    assert threat.norm == other.name
    assert region.contains(report.x, report.x_adv).all()
    assert report.robust_accuracy.value < report.clean_accuracy.value


def test_an_estimator_and_its_groups_and_costs() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(200, 4))
    y = (x[:, 0] + x[:, 1] > 1).astype(int)
    model = sklearn_model(LogisticRegression().fit(x, y), domain=(0, 1))
    data = from_arrays(x, y, groups=np.where(x[:, 2] > 0.5, "old", "young"))
    report = evaluate(
        model, data, Threat(region=Linf(0.1)), preset="smoke", severity=[[0, 1], [5, 0]]
    )
    assert {s.name for s in report.groups} == {"old", "young"}
    assert sum(s.robust_accuracy.n for s in report.groups) == 200
    assert report.severity is not None
    assert report.severity.worst == 5
    assert report.severity.robust_mean.low > report.severity.clean_mean.high
    assert not report.curve


def test_costs_that_do_not_cover_the_classes_are_told_before_the_attacks(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("withstand.evaluate._evaluate._Evaluation.attack", lambda self: 1 / 0)
    with pytest.raises(WithstandError, match=r"severity has shape \(2, 2\); give a square matrix"):
        evaluate(digits.model, digits.data, THREAT, preset="smoke", severity=[[0, 1], [5, 0]])


def test_time_that_runs_out_is_said_and_counts_as_robust(digits: Any) -> None:
    report = evaluate(digits.model, digits.data, THREAT, budget=Budget(seconds=1e-4))
    finding = next(f for f in report.trust.findings if f.check == "unfinished samples")
    assert finding.verdict == "red"
    assert finding.value == 1
    assert report.robust_accuracy.value == report.clean_accuracy.value
    assert set(report.samples.status) <= {"budget spent", "already wrong"}


@pytest.mark.parametrize("kind", ["forwards", "backwards"])
def test_a_budget_for_each_sample_holds_over_all_attacks(kind: str, digits: Any) -> None:
    budget = Budget(**{kind: 37})
    report = evaluate(
        digits.model, digits.data, Threat(region=Linf(0.01)), preset="smoke", budget=budget
    )
    assert getattr(report.samples, kind).max() == 37


def test_the_seed_decides_and_neither_batch_nor_order_does(digits: Any) -> None:
    data, order = digits.data.head(40), np.random.default_rng(0).permutation(40)
    base = evaluate(digits.model, data, THREAT, preset="smoke", batch_size=40)
    other = evaluate(digits.model, data.take(order), THREAT, preset="smoke", batch_size=17)
    assert np.array_equal(other.x_adv, base.x_adv[order])
    again = evaluate(digits.model, data, THREAT, preset="smoke", seed=1, batch_size=40)
    assert not np.array_equal(again.samples.first_success, base.samples.first_success)


def _bad(digits: Any) -> dict[str, tuple[Any, Any, Any, str]]:
    model, data = digits.model, digits.data

    def changed(x: Any = data.x, y: Any = data.y) -> Dataset:
        return from_arrays(x, y)

    nan = TorchModel(nn.Sequential(digits.net, nn.LogSoftmax(1), _Nan()))
    mixed = np.random.default_rng(3).permutation(data.y)
    return {
        "normalised data": (model, changed(x=(data.x - 0.3) / 0.3), {}, "domain"),
        "labels out of range": (model, changed(y=data.y + 5), {}, "labels run from 5 to 14"),
        "class order": (model, changed(y=9 - data.y), {}, "the model's class 0 is the data's 9"),
        "shuffled": (model, changed(y=mixed), {}, "chance is 10.0 %; check the order"),
        "raw module": (digits.net, data, {}, "TorchModel"),
        "preset": (model, data, {"preset": "quick"}, "smoke, standard, thorough"),
        "NaN answers": (nan, data, {}, "NaN"),
        "severity": (model, data, {"severity": [[0, 1], [1, 0]]}, "square matrix for 10"),
    }


class _Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


@pytest.mark.parametrize(
    "name",
    [
        *("normalised data", "labels out of range", "class order", "raw module", "preset"),
        *("shuffled", "NaN answers", "severity"),
    ],
)
def test_bad_input_is_one_line_with_the_fix(name: str, digits: Any) -> None:
    model, data, options, words = _bad(digits)[name]
    with pytest.raises(WithstandError, match=words) as caught:
        evaluate(model, data, THREAT, **{"preset": "smoke", **options})
    assert "\n" not in str(caught.value)


def test_an_attacker_who_sees_nothing_needs_surrogates(digits: Any) -> None:
    with pytest.raises(WithstandError, match="no surrogates"):
        evaluate(digits.model, digits.data, Threat(region=Linf(0.1), access="none"))


def test_a_zero_budget_is_refused() -> None:
    with pytest.raises(WithstandError, match="more than 0"):
        Budget(seconds=0)


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(3, 1, 12, 12))
    other = np.clip(x + 0.1 * rng.normal(size=x.shape), 0, 1)
    ours = ssim(torch.from_numpy(x), torch.from_numpy(other), 1.0)
    for i in range(3):
        theirs = structural_similarity(x[i, 0], other[i, 0], data_range=1.0)
        assert float(ours[i]) == pytest.approx(theirs, abs=0.02)
    assert torch.allclose(
        ssim(torch.from_numpy(x), torch.from_numpy(x), 1.0), torch.ones(3).double()
    )


def test_severity_reads_the_matrix_as_true_class_by_answer() -> None:
    found = severity_of([[0, 1], [10, 0]], np.array([0, 1]), np.array([0, 1]), np.array([1, 0]))
    assert (found.clean_mean.value, found.robust_mean.value, found.worst) == (0, 5.5, 10)
    # Two right answers do not say that there are no dear mistakes.
    assert found.clean_mean.low == 0
    assert found.clean_mean.high > 5


def test_arguments_of_another_kind_are_told_in_one_line() -> None:
    x = np.random.default_rng(0).random((8, 2), dtype=np.float32)
    model, threat = TorchModel(nn.Linear(2, 2)), Threat(region=Linf(0.1))
    data: Any = from_arrays(x, np.arange(8) % 2)
    with pytest.raises(DataError, match=r"the data are a tuple; .*from_arrays\(x, y\)"):
        evaluate(model, (x, data.y), threat)  # type: ignore[arg-type]
    with pytest.raises(ThreatError, match=r"the threat is a Linf; wrap it, e.g. Threat\("):
        evaluate(model, data, Linf(0.1))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"the net is a function; .* FunctionModel"):
        TorchModel(lambda x: x)  # type: ignore[arg-type]
