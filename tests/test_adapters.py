"""Composed models: closed-form gradients, untouched members, and models loaded from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from withstand import attacks
from withstand.config import ModelConfig
from withstand.models import (
    Detecting,
    Differentiable,
    Ensemble,
    Model,
    Pipeline,
    Randomized,
    TorchModel,
    adapt,
    describe,
    load_model,
)
from withstand.threat import Evading, Linf, Threat, Untargeted


def net(seed: int = 0, outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


X = torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _check(model: Model, value: Any) -> None:
    """Scores, gradient and Jacobian agree with autograd through `value`."""
    x = X.clone().requires_grad_()
    scores = value(x)
    assert isinstance(model, Model)
    assert torch.allclose(model.scores(X), scores)
    assert torch.equal(model.labels(X), scores.argmax(1))
    seen = model.gradient(X, lambda s: s[:, 1] - s[:, 0])
    (expected,) = torch.autograd.grad((scores[:, 1] - scores[:, 0]).sum(), x, retain_graph=True)
    assert torch.allclose(seen.gradient, expected)
    assert torch.allclose(seen.scores, scores)
    outputs = torch.tensor([[1, 0]]).expand(5, 2)
    _, jacobian = model.jacobian(X, outputs)
    for j in range(2):
        (row,) = torch.autograd.grad(scores[:, outputs[0, j]].sum(), x, retain_graph=True)
        assert torch.allclose(jacobian[:, j], row)


def test_a_pipeline_is_differentiated_through_its_steps() -> None:
    inner = net()
    steps = (lambda x: 2 * x, torch.sin)
    model = Pipeline(steps, TorchModel(inner))
    _check(model, lambda x: inner(torch.sin(2 * x)))


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_an_ensemble_is_the_mean_of_its_members(combine: Any) -> None:
    nets = [net(0), net(1), net(2)]
    model = Ensemble([TorchModel(n) for n in nets], combine=combine)

    def mean(x: Tensor) -> Tensor:
        scores = torch.stack([n(x) for n in nets])
        return scores.mean(0) if combine == "logits" else scores.softmax(2).mean(0).log()

    _check(model, mean)


def test_a_vote_gives_labels_only() -> None:
    nets = [net(0), net(1), net(2)]
    model = Ensemble([TorchModel(n) for n in nets], combine="vote")
    assert model.access == "labels"
    expected = torch.stack([n(X).argmax(1) for n in nets]).mode(0).values
    assert torch.equal(model.labels(X), expected)


@pytest.mark.parametrize("kind", ["probabilities", "probability", "logit"])
def test_adapted_answers_have_exact_gradients(kind: str) -> None:
    inner = net(outputs=3 if kind == "probabilities" else 1)
    squash: dict[str, Any] = {
        "probabilities": lambda z: z.softmax(1),
        "probability": torch.sigmoid,
        "logit": lambda z: 3 * z - 1,
    }
    wrapped = _Then(inner, squash[kind])
    model, notes = adapt(TorchModel(wrapped), wrapped(X).detach())
    assert len(notes) == 1

    def value(x: Tensor) -> Tensor:
        z = inner(x)
        if kind == "probabilities":
            return z.log_softmax(1)
        p = torch.sigmoid(z)
        if kind == "probability":
            return torch.cat((1 - p, p), 1).log()
        return torch.cat((torch.zeros_like(z), 3 * z - 1), 1)

    _check(model, value)


class _Then(nn.Module):
    def __init__(self, inner: nn.Module, function: Any) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.function(self.inner(x))
        return out


def test_logits_are_left_alone() -> None:
    model = TorchModel(net())
    assert adapt(model, model.scores(X)) == (model, [])


def test_bpda_has_the_defences_value_and_the_surrogates_gradient() -> None:
    inner = net()
    blind = TorchModel(inner, preprocess=torch.round)
    through = TorchModel(inner, preprocess=Differentiable(torch.round))
    assert torch.equal(blind.scores(X), through.scores(X))
    assert not blind.gradient(X, lambda s: s[:, 0]).gradient.any()
    x = X.round().requires_grad_()
    (expected,) = torch.autograd.grad(inner(x)[:, 0].sum(), x)
    assert torch.allclose(through.gradient(X, lambda s: s[:, 0]).gradient, expected)
    steep = Differentiable(torch.round, lambda x: 3 * x)
    tripled = TorchModel(inner, preprocess=steep).gradient(X, lambda s: s[:, 0]).gradient
    assert torch.allclose(tripled, 3 * expected)


class _Noisy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x + 0.2 * torch.randn_like(x))
        return out


def test_randomized_averages_over_steady_draws_and_leaves_the_generator() -> None:
    inner = net()
    few = Randomized(TorchModel(_Noisy(inner)), draws=20)
    before = torch.get_rng_state()
    slopes = [few.gradient(X, lambda s: s[:, 0]).gradient for _ in range(2)]
    assert torch.equal(*slopes)
    model = Randomized(TorchModel(_Noisy(inner)), draws=400)
    first, scores = model.gradient(X, lambda s: s[:, 0]), model.scores(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(scores, first.scores)
    assert torch.allclose(scores, first.scores, atol=0.05)
    one = Randomized(TorchModel(_Noisy(inner)), draws=1)
    assert not torch.allclose(one.scores(X), first.scores, atol=0.02)


def test_an_attacker_can_be_asked_to_evade_a_detector() -> None:
    with torch.no_grad():
        line = nn.Linear(2, 2, bias=False)
        line.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    model = TorchModel(line, domain=(-1, 1))
    x, y = torch.tensor([[0.2, 0.0]]), torch.tensor([0])
    # The class changes where x0 < 0; the detector fires there unless x1 > 0.3.
    guarded = Detecting(model, lambda x: -x[:, 0] * 10 - (x[:, 1] - 0.3) * 100, threshold=0.0)
    threat = Threat(region=Linf(0.5), goal=Evading(Untargeted()))
    plain = attacks.run(attacks.PGD(steps=20), model, x, y, Threat(region=Linf(0.25)))
    evading = attacks.run(attacks.APGD(loss="margin"), guarded, x, y, threat)
    assert bool(plain.success)
    assert plain.x_adv[0, 1] < 0.3
    assert bool(evading.success)
    assert evading.x_adv[0, 1] > 0.3
    assert evading.x_adv[0, 0] < 0
    assert guarded.scores(evading.x_adv)[0, -1] > 0


def test_weights_come_from_safetensors_or_a_state_dict(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "helper.py").write_text("WIDTH = 3\n")
    (tmp_path / "model.py").write_text(
        "from torch import nn\nfrom helper import WIDTH\n\n"
        "def build():\n    return nn.Linear(4, WIDTH)\n"
    )
    line = nn.Linear(4, 3)
    save_file(line.state_dict(), tmp_path / "w.safetensors")
    torch.save(line.state_dict(), tmp_path / "w.pt")
    digests = set()
    for weights in ("w.safetensors", "w.pt"):
        spec = ModelConfig(kind="torch", factory="model.py:build", weights=weights)
        model = load_model(spec, tmp_path)
        assert torch.equal(model.scores(X.float()), line(X.float()))
        digests.add(describe(model)["digest"])
    assert len(digests) == 1
    unfilled = load_model(ModelConfig(kind="torch", factory="model.py:build"), tmp_path)
    assert describe(unfilled)["digest"] not in digests


def test_functions_and_estimators_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n"
        "def function():\n    return lambda x: x[:, :2]\n"
        "def estimator():\n"
        "    x = np.eye(4)\n    return LogisticRegression().fit(x, [0, 0, 1, 1])\n"
    )
    x = torch.rand(3, 4)
    spec = ModelConfig(kind="python", factory="model.py:function")
    assert torch.equal(load_model(spec, tmp_path).scores(x), x[:, :2])
    spec = ModelConfig(kind="sklearn", factory="model.py:estimator")
    expected = LogisticRegression().fit(np.eye(4), [0, 0, 1, 1]).predict(x.numpy())
    assert load_model(spec, tmp_path).labels(x).tolist() == expected.tolist()
