"""Adapters against closed forms, and a victim that comes back as it was."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from withstand import WithstandError
from withstand.models import FunctionModel, Model, TorchModel, sklearn_model

W = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.25]])


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


def test_wrong_form_is_one_line() -> None:
    class Tuple(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (x,)

    with pytest.raises(WithstandError, match="one row of scores") as caught:
        TorchModel(Tuple()).scores(torch.rand(2, 2))
    assert "\n" not in str(caught.value)
