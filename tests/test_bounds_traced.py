"""Bounds of modules that do more than their layers say, and of those that they must refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from withstand._errors import ModelError
from withstand.certify import Bounds, certify
from withstand.certify.bounds import bounds, prove
from withstand.data import from_arrays
from withstand.models import TorchModel
from withstand.threat import L0, L2, Linf, Region, Targeted, Threat


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Steps(nn.Module):
    """Two layers, and what a function makes of them and the input."""

    def __init__(self, forward: Callable[[Steps, Tensor], Tensor], inputs: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(inputs, inputs), nn.Linear(inputs, 2)
        self.rectified, self.steps = nn.ReLU(inplace=True), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self, x)


def used_after_relu(net: Steps, x: Tensor) -> Tensor:
    hidden = net.a(x)
    net.rectified(hidden)
    return net.b(hidden)


def used_after_relu_of_a_view(net: Steps, x: Tensor) -> Tensor:
    hidden = net.a(x)
    hidden.view(-1, 2, 2).relu_()
    return net.b(hidden)


@pytest.mark.parametrize("forward", [used_after_relu, used_after_relu_of_a_view])
def test_a_value_that_was_written_to_is_not_used_again(forward: Callable[..., Tensor]) -> None:
    # All is above 0 near this input, where the step in place shows nowhere.
    net = Steps(forward)
    with torch.no_grad():
        net.a.weight.copy_(torch.eye(4))
        net.a.bias.fill_(-1.0)
    with pytest.raises(ModelError, match="is changed in place and then used once more"):
        bounds(TorchModel(net, domain=(0, 255)), torch.full((1, 4), 120.0), Linf(60.0))


def test_steps_in_place_that_nothing_sees_are_the_steps_themselves() -> None:
    net = Steps(lambda net, x: net.b(net.rectified(net.a(x)).add_(1.0)))
    plain = Steps(lambda net, x: net.b(functional.relu(net.a(x)) + 1.0))
    plain.load_state_dict(net.state_dict())
    x = torch.rand(3, 4)
    for mine, theirs in zip(bounds(net, x, Linf(0.1)), bounds(plain, x, Linf(0.1)), strict=True):
        assert torch.equal(mine, theirs)


def used_after_a_sum(net: Steps, x: Tensor) -> Tensor:
    hidden = net.a(x)
    other = hidden
    other += 1.0
    return net.b(other - hidden)


def turned_by_a_hook(net: Steps) -> Steps:
    net.b.register_forward_hook(lambda module, given, out: -out)
    return net


def tiny(net: Steps) -> Steps:
    with torch.no_grad():
        for parameter in net.b.parameters():
            parameter.mul_(1e-6)
    return net


PASSED_OVER: dict[str, Callable[[], nn.Module]] = {
    "a hook": lambda: turned_by_a_hook(Steps(lambda net, x: net.b(net.a(x)))),
    "a hook on tiny scores": lambda: turned_by_a_hook(tiny(Steps(lambda net, x: net.b(net.a(x))))),
    "a sum in place": lambda: Steps(used_after_a_sum),
    "a mean of the batch": lambda: Steps(lambda net, x: net.a(x).mean(0), 5),
    "samples as features": lambda: Steps(lambda net, x: net.b(x - x.transpose(0, 1)), 5),
    "a number of the input": lambda: Steps(lambda net, x: net.b(x) + x.data.mean()),
    "chance": lambda: Steps(lambda net, x: net.b(functional.dropout(x, 0.001))),
    "a factor below 0": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.AvgPool2d(2, divisor_override=-3), nn.Flatten()
    ),
}


@pytest.mark.parametrize("what", PASSED_OVER)
def test_what_a_graph_would_pass_over_is_refused_in_one_line(what: str) -> None:
    inputs = 5 if what in ("a mean of the batch", "samples as features") else 4
    with pytest.raises(ModelError) as caught:
        bounds(PASSED_OVER[what]().eval(), torch.rand(2, inputs), Linf(0.1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["before", "after", "both"])
def test_casts_change_no_bound(where: str) -> None:
    def cast(net: Steps, x: Tensor) -> Tensor:
        scores = net.b(functional.relu(net.a(x.float() / 2 if where != "after" else x / 2)))
        return scores if where == "before" else scores.float()

    net, plain = Steps(cast), Steps(lambda net, x: net.b(functional.relu(net.a(x / 2))))
    plain.load_state_dict(net.state_dict())
    x = torch.rand(2, 4)
    assert torch.equal(bounds(net, x, Linf(0.1)).lower, bounds(plain, x, Linf(0.1)).lower)


def test_what_coarser_types_inside_can_change_is_taken_off() -> None:
    def automatic(net: Steps, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net.b(x).float()

    net, x = Steps(automatic), torch.rand(60, 4)
    with torch.no_grad():
        net.b.weight[1] = net.b.weight[0]
        net.b.bias.copy_(torch.tensor([0.0, 1e-3]))
    model, y = TorchModel(net), torch.ones(60, dtype=torch.long)
    wrong = (model.labels(x) != y).numpy()
    assert wrong.any()
    assert prove(model, x, y, Threat(region=Linf(0.0)), arithmetic="real").proven.all()
    served = prove(model, x, y, Threat(region=Linf(0.0)))
    assert served.arithmetic == "bfloat16"
    assert not served.proven[wrong].any()


@pytest.mark.parametrize("ending", [nn.Identity, nn.Sigmoid])
@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_score_is_proven_as_the_two_classes_that_it_stands_for(
    ending: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1), ending())
    net = nn.Sequential(*net, nn.Flatten(0)) if not shape else net
    x = torch.rand(40, 2)
    with torch.no_grad():
        net[2].bias -= net[:3](x).median()
    model, half = TorchModel(net), 0.5 if ending is nn.Sigmoid else 0.0
    y = (model.scores(x)[:, 0] > half).long()
    y[0] = 1 - y[0]
    found = certify(model, from_arrays(x.numpy(), y.numpy()), Threat(region=Linf(0.05)), Bounds())
    assert [c.answer for c in found.certificates[1:]] == y[1:].tolist()
    assert found.certificates[0].outcome == "wrong"
    assert 0.1 < found.certified.mean() < 0.95
    moves = 0.05 * (2 * torch.rand(500, 1, 2) - 1)
    inside = (x + moves).clamp(0, 1)
    answers = model.scores(inside.flatten(0, 1)).reshape(500, 40) > half
    kept = (answers == (y > 0)).all(0).numpy()
    assert kept[found.certified].all()


def test_a_sample_of_the_targets_own_class_cannot_be_brought_there() -> None:
    model, x = TorchModel(nn.Linear(4, 3)), torch.rand(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    found = prove(model, x, y, Threat(region=Linf(5.0), goal=Targeted(1)))
    assert found.proven.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize("region", [L0(np.inf), L0(np.array([2.0, np.inf]))])
def test_any_number_of_features_may_change(region: Region) -> None:
    net, x = nn.Linear(3, 2), torch.rand(2, 3)
    found = bounds(TorchModel(net), x, region).lower
    whole = bounds(TorchModel(net), x, L2(9.0)).lower
    assert found[1].numpy() == pytest.approx(whole[1].numpy())


def test_a_net_is_traced_in_inference_mode_too() -> None:
    with torch.inference_mode():
        net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.rand(5, 4)
        model = TorchModel(net)
        found = prove(model, x, model.labels(x), Threat(region=Linf(1e-4)))
    assert found.proven.all()
