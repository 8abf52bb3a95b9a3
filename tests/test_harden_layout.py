"""Convolutions are trained with the channels last in memory, and nobody else sees that."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training import same

from withstand.data import Dataset, load_sklearn
from withstand.harden import Epoch, Lost, Moment, Standard, harden, sgd
from withstand.harden._layout import lay, quickest

LAST = torch.channels_last


class Net(nn.Module):
    """Two convolutions, and what is done with what they give."""

    def __init__(self, how: str = "flatten", drop: float = 0.2) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.drop, self.last, self.how = nn.Dropout(drop), nn.Linear(96, 10), how

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.second(self.first(x).relu()))
        if self.how == "flatten":
            x = x.flatten(1)
        elif self.how == "view":
            x = x.view(len(x), -1)
        elif self.how == "view in training":
            x = x.view(len(x), -1) if self.training else x.flatten(1)
        else:
            # Whoever reads memory by hand gets other numbers.
            x = torch.as_strided(x, (len(x), 96), (96, 1))
        scores: Tensor = self.last(x)
        return scores


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load_sklearn("digits", limit=130)


class Watching(Standard):
    """Standard training that notes whether the weights have the channels last."""

    seen: ClassVar[list[bool]] = []

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        weight = net.second.weight
        assert isinstance(weight, nn.Parameter)
        self.seen.append(weight.is_contiguous(memory_format=LAST))
        return super().loss(net, x, y, at)


def test_training_has_the_channels_last_and_callbacks_and_result_do_not(few: Dataset) -> None:
    told: list[bool] = []

    def callback(epoch: Epoch, net: nn.Module) -> None:
        told.extend(p.is_contiguous() for p in net.parameters())

    net = Net()
    before = deepcopy(net)
    Watching.seen.clear()
    made = harden(net, few, Watching(), epochs=2, batch_size=64, callbacks=[callback])
    assert Watching.seen == [True] * 4
    assert all(told)
    assert all(p.is_contiguous() for p in made.net.parameters())
    assert same(net, before)
    assert all(p.is_contiguous() for p in net.parameters())


def test_a_training_comes_to_the_same_as_with_the_usual_layout(
    few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without dropout, whose noise is drawn in the order of memory.
    net, x = Net(drop=0.0), torch.from_numpy(few.x)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 32, "optimizer": sgd(0.05)}
    last = harden(net, few, Standard(), **settings)
    monkeypatch.setattr("withstand.harden._training.quickest", lambda *_: torch.contiguous_format)
    usual = harden(net, few, Standard(), **settings)
    with torch.no_grad():
        np.testing.assert_allclose(last.net(x), usual.net(x), atol=1e-4)
        assert float((last.net(x) - net(x)).abs().max()) > 0.1
    assert last.cost.backwards == usual.cost.backwards


@pytest.mark.parametrize("how", ["view", "view in training", "by hand"])
def test_a_net_that_knows_the_usual_layout_only_is_trained_in_it(how: str, few: Dataset) -> None:
    assert quickest(Net("flatten"), torch.rand(4, 1, 8, 8)) is LAST
    assert quickest(Net(how), torch.rand(4, 1, 8, 8)) is torch.contiguous_format
    Watching.seen.clear()
    harden(Net(how), few, Watching(), epochs=1, batch_size=64)
    assert not any(Watching.seen)


def test_nets_without_convolutions_and_broken_ones_stay_as_they_are() -> None:
    x = torch.rand(4, 1, 8, 8)
    assert quickest(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), x) is torch.contiguous_format
    assert quickest(Net(), torch.rand(4, 3, 8, 8)) is torch.contiguous_format


def test_looking_for_a_layout_changes_neither_net_nor_chance() -> None:
    net = Net().train()
    before, state = deepcopy(net), torch.random.get_rng_state()
    assert quickest(net, torch.rand(2, 1, 8, 8, generator=torch.Generator())) is LAST
    assert same(net, before)
    assert net.training
    assert all(p.is_contiguous() and p.grad is None for p in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_laying_out_keeps_parameters_and_values() -> None:
    net = Net()
    kept, before = list(net.parameters()), deepcopy(net)
    lay(net, LAST)
    assert net.second.weight.is_contiguous(memory_format=LAST)
    assert not net.second.weight.is_contiguous()
    assert all(one is other for one, other in zip(net.parameters(), kept, strict=True))
    assert same(net, before)
    lay(net, torch.contiguous_format)
    assert net.second.weight.is_contiguous()
