"""Adapters against closed forms, and a victim that comes back as it was."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn
from torch.nn import functional

from withstand import WithstandError, models
from withstand._errors import ModelError
from withstand._factory import called, importable
from withstand.models import (
    Detecting,
    Differentiable,
    Ensemble,
    FunctionModel,
    Model,
    Pipeline,
    Randomized,
    Thresholded,
    TorchModel,
    adapt,
    describe,
    sklearn_model,
)
from withstand.threat import Evading, Untargeted

W = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.25]])
X = torch.tensor([[0.1, 0.9], [0.8, 0.3]])


def linear() -> nn.Module:
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(W)
        net.bias.zero_()
    return net


def test_gradient_and_jacobian_of_a_linear_model() -> None:
    model, x = TorchModel(linear()), torch.rand(4, 2)
    seen = model.gradient(x, lambda scores: scores[:, 1] - scores[:, 0])
    assert torch.allclose(seen.gradient, (W[1] - W[0]).expand(4, 2))
    assert torch.allclose(seen.scores, x @ W.T)
    picked = torch.tensor([[2, 0], [1, 1], [0, 2], [2, 1]])
    _, grads = model.jacobian(x, picked)
    assert torch.allclose(grads, W[picked])
    assert not x.requires_grad


def test_preprocessing_is_differentiated_through() -> None:
    model = TorchModel(linear(), preprocess=lambda x: x / 2)
    seen = model.gradient(torch.rand(3, 2), lambda scores: scores[:, 0])
    assert torch.allclose(seen.gradient, (W[0] / 2).expand(3, 2))


@pytest.mark.parametrize("cut", [torch.round, Tensor.detach])
def test_a_shattered_gradient_is_zero_and_no_crash(cut: object) -> None:
    model = TorchModel(nn.Sequential(linear()), preprocess=cut)  # type: ignore[arg-type]
    with model.held():
        seen = model.gradient(torch.rand(3, 2), lambda scores: scores[:, 0])
        _, grads = model.jacobian(torch.rand(3, 2), torch.zeros(3, 1, dtype=torch.long))
    assert not seen.gradient.any()
    assert grads.shape == (3, 1, 2)
    assert not grads.any()


def test_victim_comes_back_untouched() -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[3].bias.grad = torch.ones(3)
    before, random = copy.deepcopy(net), torch.get_rng_state()
    model = TorchModel(net)

    def attack_and_fail() -> None:
        with model.held():
            assert not any(m.training for m in net.modules())
            torch.rand(3)
            net[1].train()
            model.gradient(torch.rand(5, 2), lambda scores: scores[:, 0])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        attack_and_fail()
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    for (name, now), then in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then), name
        assert now.requires_grad == then.requires_grad, name
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["3.bias"]
    assert torch.equal(net[3].bias.grad, torch.ones(3))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before.buffers(), strict=True))
    assert torch.equal(torch.get_rng_state(), random)


def test_functions_give_scores_or_labels() -> None:
    by_scores = FunctionModel(lambda x: x @ W.numpy().T)
    by_labels = FunctionModel(lambda x: (x @ W.numpy().T).argmax(1), returns="labels")
    x = torch.rand(6, 2)
    assert isinstance(by_scores, Model)
    assert torch.equal(by_scores.labels(x), by_labels.labels(x))
    with pytest.raises(WithstandError, match="access: labels"):
        by_labels.scores(x)
    with pytest.raises(WithstandError, match="no gradients"):
        by_scores.gradient(x, lambda scores: scores[:, 0])


def test_scikit_learn_estimators() -> None:
    data, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    x = torch.tensor(data, dtype=torch.float32)
    for estimator in (LogisticRegression(max_iter=2000), LinearSVC()):
        model = sklearn_model(estimator.fit(data.astype("float32"), names), domain=(0, 10))
        expected = np.searchsorted(estimator.classes_, estimator.predict(data.astype("float32")))
        assert (model.labels(x).numpy() == expected).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_estimators_give_their_margins_and_machines_of_pairs_labels(classes: int) -> None:
    data, y = load_iris(return_X_y=True)
    data, y = data[y < classes].astype("float32"), y[y < classes]
    x = torch.from_numpy(data)
    linear = (
        LinearSVC(),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
        make_pipeline(StandardScaler(), LinearSVC()),
    )
    for estimator in linear:
        model = sklearn_model(estimator.fit(data, y), domain=(0, 10))
        assert model.access == "scores"
        assert model.scores(x).shape == (len(x), classes)
        assert (model.labels(x).numpy() == estimator.predict(data)).all()
    for pairs in (SVC(), SVC(kernel="linear")):
        assert sklearn_model(pairs.fit(data, y), domain=(0, 10)).access == "labels"


def test_wrong_form_is_one_line() -> None:
    class Tuple(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (x,)

    with pytest.raises(WithstandError, match="one row of scores") as caught:
        TorchModel(Tuple()).scores(torch.rand(2, 2))
    assert "\n" not in str(caught.value)


def test_what_a_model_raises_is_one_line_that_keeps_its_cause() -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        raise KeyError("no such\ncolumn")

    for model in (FunctionModel(broken), TorchModel(nn.Linear(3, 2))):
        with pytest.raises(ModelError, match=r"failed on an input of shape \(2, 2\)") as caught:
            model.scores(torch.rand(2, 2))
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None


def test_a_model_that_fails_on_pictures_is_told_of_their_layout() -> None:
    model = TorchModel(nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"model.layout: hwc if it takes the channels last"):
        model.scores(torch.rand(2, 3, 4, 5))
    with pytest.raises(ModelError) as caught:
        model.scores(torch.rand(2, 5))
    assert "hwc" not in str(caught.value)


def logit_model(weight: Tensor = W) -> TorchModel:
    net = nn.Linear(2, len(weight), bias=False)
    with torch.no_grad():
        net.weight.copy_(weight)
    return TorchModel(net)


def first(scores: Tensor) -> Tensor:
    return scores[:, 0]


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.randn_like(x)) @ W.T


def adapters() -> dict[str, Model]:
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    inner = TorchModel(net.train())
    chances = TorchModel(nn.Sequential(net, nn.Softmax(1)))
    return {
        "torch": inner,
        "pipeline": Pipeline([lambda x: 2 * x, nn.BatchNorm1d(2)], inner),
        "ensemble": Ensemble([inner, logit_model()]),
        "logits": Ensemble([inner, logit_model()], combine="logits"),
        "randomized": Randomized(inner, draws=3),
        "detecting": Detecting(inner, nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), threshold=0),
        "adapted": adapt(chances, chances.scores(torch.rand(9, 2)))[0],
    }


@pytest.mark.parametrize("name", adapters())
def test_every_adapter_is_a_model_with_true_gradients(name: str) -> None:
    torch.manual_seed(0)
    model, x = adapters()[name], torch.rand(4, 2, dtype=torch.float32)
    with model.held():
        scores = model.scores(x)
        seen = model.gradient(x, first)
        outputs = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 2]])
        again, gradients = model.jacobian(x, outputs)
        single = model.gradient(x, lambda s: s.gather(1, outputs[:, 1:])[:, 0])
        step = 1e-2 * torch.eye(2)
        slopes = [(model.scores(x + d) - model.scores(x - d))[:, 0] / 2e-2 for d in step]
    assert isinstance(model, Model)
    assert model.access == "gradients"
    assert torch.allclose(seen.scores, scores, atol=1e-5)
    assert torch.allclose(again, scores, atol=1e-5)
    assert torch.allclose(seen.values, scores[:, 0], atol=1e-4) or name == "randomized"
    assert torch.allclose(gradients[:, 1], single.gradient, atol=1e-5)
    if name != "randomized":
        assert torch.allclose(seen.gradient, torch.stack(slopes, 1), atol=2e-3)
    assert not x.requires_grad


@pytest.mark.parametrize("name", adapters())
def test_every_adapter_leaves_its_victim_untouched(name: str) -> None:
    model, x = adapters()[name], torch.rand(4, 2)
    parts = [model, *getattr(model, "steps", []), getattr(model, "detector", None)]
    parts += [getattr(model, "model", None), *getattr(model, "models", [])]
    nets = [getattr(part, "net", part) for part in parts]
    nets = [net for net in nets if isinstance(net, nn.Module)]
    assert nets
    before, modes = copy.deepcopy(nets), [m.training for n in nets for m in n.modules()]
    random, given = torch.get_rng_state(), x.clone()
    with model.held():
        assert not any(m.training for net in nets for m in net.modules())
        model.gradient(x, first)
        model.jacobian(x, torch.zeros(4, 1, dtype=torch.long))
        model.labels(x)
    assert modes == [m.training for n in nets for m in n.modules()]
    for now, then in zip(nets, before, strict=True):
        pairs = zip(now.state_dict().items(), then.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for (_, a), b in pairs)
        assert all(p.grad is None and p.requires_grad for p in now.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, given)


def test_adapters_live_where_their_model_does() -> None:
    inner = TorchModel(nn.Linear(2, 3, device="meta"))
    for model in (
        Pipeline([], inner),
        Ensemble([inner]),
        Randomized(inner),
        Detecting(inner, first, threshold=0),
    ):
        assert model.device == torch.device("meta")
    assert Pipeline([], FunctionModel(lambda x: x)).device == torch.device("cpu")


def test_the_same_weights_behind_another_activation_are_another_model() -> None:
    """A certificate of the one must not be taken for the other's."""
    torch.manual_seed(0)
    first, last = nn.Linear(2, 4), nn.Linear(4, 2)
    relu, leaky, again = (
        describe(TorchModel(nn.Sequential(first, change, last)))
        for change in (nn.ReLU(), nn.LeakyReLU(0.02), nn.ReLU())
    )
    assert relu["digest"] == leaky["digest"]
    assert relu != leaky
    assert relu == again
    net = nn.Sequential(first, nn.Dropout(0.5), last)
    told = describe(TorchModel(net.train()))
    assert told == describe(TorchModel(net.eval()))


def test_a_file_written_twice_within_a_second_runs_as_it_is_now(tmp_path: Path) -> None:
    file, when = tmp_path / "made.py", 1_700_000_000
    for made in ("one", "two"):
        file.write_text(f"def build():\n    return {made!r}\n")
        os.utime(file, (when, when))
        with importable(tmp_path, "made.py:build"):
            assert called("made.py:build", tmp_path, key="k", error=WithstandError) == made
    assert not (tmp_path / "__pycache__").exists()


def _called(what: str) -> nn.Module:
    """A network whose forward is of these words."""
    space: dict[str, Any] = {"nn": nn, "F": functional}
    exec(
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(2, 2)\n"
        "    def forward(self, x):\n"
        f"        return {what}\n",
        space,
    )
    torch.manual_seed(0)
    made: nn.Module = space["Net"]()
    return made


def test_another_function_in_a_forward_is_another_model() -> None:
    words = ("F.relu(self.layer(x))", "F.leaky_relu(self.layer(x))",
             "F.leaky_relu(self.layer(x), 0.02)")  # fmt: skip
    told = [describe(TorchModel(_called(what))) for what in words]
    assert len({str(one) for one in told}) == 3
    assert len({one["digest"] for one in told}) == 1
    assert told[0] == describe(TorchModel(_called(words[0])))


def test_what_is_done_before_a_network_is_of_the_model() -> None:
    net = linear()
    halved, turned = (lambda x: x * 0.5), (lambda x: x * -0.5)
    norms = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    norms[1].running_mean = torch.ones(2)
    for one, other in ((None, halved), (halved, turned), (norms[0], norms[1])):
        inside = [describe(TorchModel(net, preprocess=step)) for step in (one, other)]
        assert inside[0] != inside[1]
        assert inside[0]["digest"] == inside[1]["digest"]
        before = [describe(Pipeline([step] if step else [], TorchModel(net)))
                  for step in (one, other)]  # fmt: skip
        assert before[0] != before[1]
    assert describe(TorchModel(net, preprocess=halved)) == (
        describe(TorchModel(net, preprocess=lambda x: x * 0.5))
    )


class Shown(nn.Identity):
    """It shows a function of its own, with its address."""

    def __init__(self) -> None:
        super().__init__()
        self.own = lambda: None

    def extra_repr(self) -> str:
        return repr(self.own)


def test_addresses_tell_no_models_apart() -> None:
    one, other = Shown(), Shown()
    assert repr(one) != repr(other)
    assert describe(TorchModel(one)) == describe(TorchModel(other))


def test_a_model_that_works_in_place_does_not_reach_the_caller() -> None:
    x = torch.tensor([[-1.0, 2.0]])
    torch_model = TorchModel(nn.Sequential(nn.ReLU(inplace=True), linear()), domain=(-1, 2))

    def halved(rows: np.ndarray) -> np.ndarray:
        rows /= 2
        return rows

    for model in (torch_model, FunctionModel(halved), Pipeline([Tensor.relu_], logit_model())):
        model.scores(x)
        assert x.tolist() == [[-1, 2]]
    assert torch_model.gradient(x, first).gradient.tolist() == [[0, -2]]


def test_pipeline_differentiates_its_steps() -> None:
    model = Pipeline([torch.sin, lambda x: 3 * x], logit_model(), domain=(-4, 4))
    x = torch.rand(3, 2)
    assert torch.allclose(model.scores(x), 3 * torch.sin(x) @ W.T)
    assert torch.allclose(model.gradient(x, first).gradient, 3 * torch.cos(x) * W[0])
    assert model.domain.lower == -4
    cut = Pipeline([Tensor.detach], logit_model())
    assert not cut.gradient(x, first).gradient.any()


def test_differentiable_has_the_defences_value_and_the_surrogates_slope() -> None:
    x = torch.tensor([[0.2, 0.7]])
    model = TorchModel(linear(), preprocess=Differentiable(torch.round))
    assert torch.equal(model.scores(x), torch.tensor([[0.0, 1.0]]) @ W.T)
    assert torch.allclose(model.gradient(x, first).gradient, W[:1])
    squared = Pipeline([Differentiable(torch.round, torch.square)], logit_model())
    assert torch.allclose(squared.gradient(x, first).gradient, 2 * x * W[0])
    with pytest.raises(WithstandError, match="give a surrogate with the defence's shape"):
        Differentiable(lambda x: x[:, :1])(x)


def test_ensemble_combinations() -> None:
    other = -2 * W.flip(0)
    members = [logit_model(), logit_model(other)]
    x = torch.rand(5, 2)
    mean = (x @ W.T + x @ other.T) / 2
    assert torch.allclose(Ensemble(members, combine="logits").scores(x), mean)

    def chances(x: Tensor) -> Tensor:
        return ((x @ W.T).softmax(1) + (x @ other.T).softmax(1)).div(2).log()

    both = Ensemble(members)
    assert torch.allclose(both.scores(x), chances(x), atol=1e-6)
    expected = by_autograd(lambda x: chances(x)[:, 0], x)
    assert torch.allclose(both.gradient(x, first).gradient, expected, atol=1e-6)
    alone = Ensemble(members[:1]).scores(x)
    shift = alone - x @ W.T
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6)
    vote = Ensemble([*members, logit_model()], combine="vote")
    assert vote.access == "labels"
    assert torch.equal(vote.labels(x), (x @ W.T).argmax(1))
    tie = Ensemble(members, combine="vote").labels(x)
    assert torch.equal(tie, torch.minimum((x @ W.T).argmax(1), (x @ other.T).argmax(1)))
    function = FunctionModel(lambda x: x @ W.numpy().T)
    assert Ensemble([members[0], function]).access == "scores"


def test_ensemble_keeps_gradients_where_probabilities_underflow() -> None:
    model = Ensemble([logit_model(300 * W)])
    seen = model.gradient(torch.tensor([[0.0, 1.0]]), first)
    assert torch.allclose(seen.gradient, 300 * (W[:1] - W[1:2]))


def test_ensembles_that_cannot_be() -> None:
    one, wide = logit_model(), TorchModel(linear(), domain=(0, 9))
    unknown: Any = "mean"
    makers: dict[str, Callable[[], object]] = {
        "an ensemble of 0 models": lambda: Ensemble([]),
        "differ in domain": lambda: Ensemble([one, wide]),
        "combine is 'mean'": lambda: Ensemble([one], combine=unknown),
        "give 3, 2 scores": lambda: Ensemble([one, logit_model(W[:2])]).scores(X),
        "has labels only": lambda: Ensemble([one], combine="vote").scores(X),
        "no gradients": lambda: Ensemble([one], combine="vote").gradient(X, first),
        "draws is 0": lambda: Randomized(one, draws=0),
    }
    for words, make in makers.items():
        with pytest.raises(WithstandError, match=words):
            make()


def test_randomized_is_steady_and_judged_by_fresh_draws() -> None:
    model = Randomized(TorchModel(Noisy()), draws=200)
    x = torch.tensor([[0.3, 0.6]])
    seen, again = model.gradient(x, first), model.gradient(x, first)
    assert torch.equal(seen.values, again.values)
    assert torch.allclose(seen.gradient, W[:1], atol=1e-5)
    assert abs(float(seen.values) - float((x @ W[0]).item())) < 0.5
    assert torch.equal(model.scores(x), model.scores(x))
    assert not torch.equal(model.scores(x), seen.scores)
    assert torch.allclose(model.scores(x).exp().sum(1), torch.ones(1), atol=1e-5)
    steady = Randomized(logit_model(), draws=4, combine="logits")
    assert torch.allclose(steady.scores(x), x @ W.T)
    assert describe(model)["model"]["net"] == "Noisy"


class Stretched(nn.Module):
    """Each feature by itself, under one random factor for all."""

    def forward(self, x: Tensor) -> Tensor:
        return (1 + torch.rand(())) * x.sin()


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_the_mean_over_draws_does_not_depend_on_the_batch(combine: str) -> None:
    model = Randomized(TorchModel(Stretched()), combine=combine)
    x = torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
    whole, scores = model.gradient(x, first), model.scores(x)
    _, jacobian = model.jacobian(x, torch.arange(64)[:, None] % 5)
    for rows in (slice(7, 8), slice(0, 3), slice(3, 20)):
        part = model.gradient(x[rows], first)
        assert torch.equal(part.scores, whole.scores[rows])
        assert torch.equal(part.values, whole.values[rows])
        assert torch.equal(part.gradient, whole.gradient[rows])
        assert torch.equal(model.scores(x[rows]), scores[rows])
        _, again = model.jacobian(x[rows], torch.arange(64)[rows, None] % 5)
        assert torch.equal(again, jacobian[rows])


def test_detecting_adds_the_detectors_silence() -> None:
    model = Detecting(logit_model(), lambda x: x.square().sum(1), threshold=1.0)
    x = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.5]])
    scores = model.scores(x)
    assert torch.allclose(scores[:, :3], x @ W.T)
    # What lies on the threshold is not above it.
    assert (scores[:, 3] > 0).tolist() == [True, True, False]
    seen = model.gradient(x, lambda s: torch.minimum(s[:, 0], 2 * s[:, 3]))
    expected = torch.where((scores[:, 0] < 2 * scores[:, 3])[:, None], W[0].expand(3, 2), -4 * x)
    assert torch.allclose(seen.gradient, expected)
    _, gradients = model.jacobian(x, torch.tensor([[3, 0]] * 3))
    assert torch.allclose(gradients, torch.stack((-2 * x, W[0].expand(3, 2)), 1))
    y = torch.tensor([1, 1, 1])
    goal = Evading(Untargeted())
    assert torch.equal(goal.hit(model.labels(x), y), goal.hit(goal.decide(scores), y))


def test_adapt_probabilities() -> None:
    plain = logit_model()
    model = TorchModel(nn.Sequential(plain.net, nn.Softmax(1)))
    x = torch.rand(6, 2)
    adapted, notes = adapt(model, model.scores(x))
    shift = adapted.scores(x) - plain.scores(x)
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-5)
    (note,) = notes
    assert "probabilities" in note
    assert note.endswith(".")
    expected = plain.gradient(x, lambda s: s.log_softmax(1)[:, 2]).gradient
    assert torch.allclose(adapted.gradient(x, lambda s: s[:, 2]).gradient, expected, atol=1e-5)
    steep = TorchModel(nn.Sequential(logit_model(1000 * W).net, nn.Softmax(1)))
    adapted, _ = adapt(steep, steep.scores(x))
    seen = adapted.gradient(x, lambda s: s.square().sum(1))
    assert torch.isfinite(seen.gradient).all()
    assert torch.isfinite(seen.scores).all()
    assert torch.isfinite(adapted.jacobian(x, torch.zeros(6, 1, dtype=torch.long))[1]).all()


def test_adapt_single_numbers() -> None:
    plain, x = logit_model(W[:1]), torch.rand(6, 2)
    z = x @ W[0]
    model, notes = adapt(plain, torch.tensor([[-1.0], [3.0]]))
    assert torch.allclose(model.scores(x), torch.stack((torch.zeros(6), z), 1))
    assert "0 and z" in notes[0]
    assert torch.equal(model.labels(x), (z > 0).long())
    _, gradients = model.jacobian(x, torch.tensor([[0, 1]] * 6))
    assert torch.allclose(gradients, torch.stack((torch.zeros(6, 2), W[0].expand(6, 2)), 1))
    chance = TorchModel(nn.Sequential(plain.net, nn.Sigmoid()))
    model, notes = adapt(chance, chance.scores(x)[:, 0])
    assert torch.allclose(model.scores(x)[:, 1] - model.scores(x)[:, 0], z, atol=1e-5)
    assert "log(1 - p)" in notes[0]
    _, gradients = model.jacobian(x, torch.tensor([[0, 1]] * 6))
    p = z.sigmoid()[:, None]
    assert torch.allclose(gradients, torch.stack((-p * W[0], (1 - p) * W[0]), 1), atol=1e-6)


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([[0.5, 0.5], [0.5, 0.6]]),
        torch.tensor([[1.5, -0.5]]),
        torch.tensor([[torch.nan, 1.0]]),
        torch.tensor([[0.2, 0.3, 4.0]]),
    ],
)
def test_adapt_leaves_logits_alone(scores: Tensor) -> None:
    model = logit_model()
    assert adapt(model, scores) == (model, [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x[:1], r"answered 2 inputs with float32 of shape \(1, 2\)"),
        (lambda x: 3.0, "one row of numbers"),
        (lambda x: ["a", "b"], "one row of numbers"),
        (lambda x: x[:, :, None], "one row of numbers"),
    ],
)
def test_functions_that_answer_in_another_form(answer: Any, words: str) -> None:
    with pytest.raises(WithstandError, match=words):
        FunctionModel(answer).scores(X)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_labels_are_whole_numbers(value: float) -> None:
    model = FunctionModel(lambda x: np.full(len(x), value), returns="labels")
    with pytest.raises(WithstandError, match="fractions or NaN where labels"):
        model.labels(X)


def test_description_is_plain_and_follows_the_weights() -> None:
    half = nn.Linear(2, 3).to(torch.bfloat16)
    told = describe(TorchModel(half))
    assert json.loads(json.dumps(told)) == told
    with torch.no_grad():
        half.weight[0, 0] += 1
    assert describe(TorchModel(half))["digest"] != told["digest"]
    pair = describe(Ensemble([logit_model(), logit_model()]))
    assert pair["models"][0] == pair["models"][1]

    class Own(FunctionModel):
        model = nn.Linear(2, 3)

    assert describe(Own(lambda x: x)) == {"kind": "Own", "access": "scores"}


def test_exported_names_are_sorted_and_exist() -> None:
    assert sorted(models.__all__, key=lambda n: (n[0].islower(), n)) == models.__all__
    assert all(hasattr(models, name) for name in models.__all__)


class Answering(nn.Module):
    """A binary network, weights 4 and -4 on one logit, and what it makes of that."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(2, 1), change
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[4.0, -4.0]]))
            self.layer.bias.zero_()

    def forward(self, x: Tensor) -> Any:
        return self.change(self.layer(x))


def test_an_answer_whose_axes_were_squeezed_away_is_one_row() -> None:
    squeezed = TorchModel(Answering(Tensor.squeeze))
    assert squeezed.scores(X).shape == (2, 1)
    assert torch.allclose(squeezed.scores(X[:1]), squeezed.scores(X)[:1])
    assert squeezed.gradient(X[:1], lambda scores: scores[:, 0]).gradient.tolist() == [[4.0, -4.0]]
    three = TorchModel(nn.Sequential(linear(), nn.Flatten(0))).scores(X[:1])
    assert torch.allclose(three, X[:1] @ W.T)
    function = FunctionModel(lambda x: np.squeeze(x @ np.array([[4.0], [-4.0]])))
    assert torch.allclose(function.scores(X[:1]), function.scores(X)[:1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: (z[:, 0] > 0).long(), "int64, which looks like labels"),
        (lambda z: z > 0, "bool, which looks like labels"),
        (lambda z: z[:, :, None, None], r"with \(2, 1, 1, 1\)"),
        (lambda z: z.sum(), r"with \(\)"),
        (lambda z: (z, z), "with an object of type tuple; it must return"),
        (
            lambda z: SimpleNamespace(logits=z),
            "whose logits a module around it can return; it must",
        ),
    ],
)
def test_what_is_no_row_of_scores_is_refused(change: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        TorchModel(Answering(change)).scores(X)


@pytest.mark.parametrize("answer", [np.array([0, 1]), np.array([[False], [True]])])
def test_a_function_that_answers_with_labels_gives_no_scores(answer: Any) -> None:
    with pytest.raises(ModelError, match="looks like labels; set access to labels"):
        FunctionModel(lambda x: answer).scores(X)
    assert FunctionModel(lambda x: answer.ravel(), returns="labels").labels(X).tolist() == [0, 1]


def test_one_score_names_no_class() -> None:
    """Its logit may be above 0 and its probability below one half: only `adapt` can tell."""
    single = TorchModel(Answering(lambda z: z))
    asked: list[Callable[[Tensor], Tensor]] = [
        single.labels,
        FunctionModel(lambda x: x[:, 0]).labels,
        Pipeline([lambda x: x], single).labels,
        Randomized(single, combine="logits").labels,
        Ensemble([single, single], combine="logits").labels,
    ]
    for labels in asked:
        with pytest.raises(ModelError, match="names no class by itself"):
            labels(X)
    assert adapt(single, single.scores(X))[0].labels(X).tolist() == [0, 1]


def test_there_is_no_mean_probability_of_single_scores() -> None:
    single = TorchModel(Answering(lambda z: z))
    for model in (Ensemble([single, single]), Randomized(single, draws=2)):
        with pytest.raises(ModelError, match="no mean probability"):
            model.scores(X)
    mean = Randomized(single, draws=2, combine="logits")
    assert torch.allclose(mean.scores(X), single.scores(X))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z,
        lambda z: torch.cat((-z / 2, z / 2), 1),
        lambda z: z.sigmoid(),
        lambda z: torch.cat((-z / 2, z / 2), 1).softmax(1),
    ],
)
def test_a_threshold_is_of_probabilities_however_the_network_answers(
    change: Callable[[Tensor], Tensor],
) -> None:
    x = torch.stack((torch.linspace(0, 1, 41), 1 - torch.linspace(0, 1, 41)), 1)
    probability = (x @ torch.tensor([4.0, -4.0])).sigmoid()
    thresholded = Thresholded(TorchModel(Answering(change)), 0.7)
    model, _ = adapt(thresholded, thresholded.scores(x))
    assert model.labels(x).tolist() == (probability >= 0.7).long().tolist()
    # As many logits apart, wherever the gradient is taken.
    slopes = model.gradient(x, lambda scores: scores[:, 1] - scores[:, 0]).gradient
    assert torch.allclose(slopes, torch.tensor([4.0, -4.0]).expand(41, 2), rtol=1e-4)


def test_a_network_of_double_precision_takes_single_inputs() -> None:
    model = TorchModel(linear().double())
    scores = model.scores(X)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, X @ W.T)
    assert model.gradient(X, lambda scores: scores[:, 1]).gradient.dtype == torch.float32
    _, gradients = model.jacobian(X, torch.tensor([[0], [2]]))
    assert torch.allclose(gradients, W[[0, 2]][:, None])
    assert model.scores(X.double()).dtype == torch.float64


def test_an_estimator_of_named_columns_is_asked_with_them() -> None:
    """As a frame: without names it warns, or fails where it chooses columns by name."""
    rows = np.random.default_rng(0).random((60, 3))
    frame = pd.DataFrame(rows, columns=["c", "a", "b"])
    chosen = ColumnTransformer([("some", StandardScaler(), ["a", "c"])])
    fitted = make_pipeline(chosen, LogisticRegression(C=50)).fit(frame, frame["a"] > 0.5)
    model = sklearn_model(fitted, domain=(0, 1))
    scores = model.scores(torch.from_numpy(rows)).numpy()
    assert np.allclose(scores, np.log(fitted.predict_proba(frame)), atol=1e-5)
    with pytest.raises(ModelError, match="the model failed on an input of shape"):
        model.scores(torch.from_numpy(rows[:, :2]))
