"""Small real parts that several tests share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand.data import Dataset, load_sklearn
from withstand.models import TorchModel


@dataclass(frozen=True)
class Digits:
    """A network trained on handwritten digits, and 60 digits that it has not seen."""

    net: nn.Module
    data: Dataset

    @property
    def model(self) -> TorchModel:
        return TorchModel(self.net)


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = load_sklearn("digits")
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
        )
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(8):
            for rows in torch.split(torch.randperm(1500), 64):
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(net(x[rows]), y[rows]))
                optimizer.step()
    return Digits(net, data.take(np.arange(1500, 1560)))


class Scaled(nn.Module):
    """Logits times a factor."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.net(x)


class Quantised(nn.Module):
    """16 input levels: no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((15 * x).round() / 15)
        return out


@pytest.fixture
def scaled(digits: Digits) -> TorchModel:
    return TorchModel(Scaled(digits.net, 100.0))


@pytest.fixture
def quantised(digits: Digits) -> TorchModel:
    return TorchModel(Quantised(digits.net))


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if not k.endswith("_seconds")}
    return [_without_seconds(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def without_seconds() -> Callable[[Any], Any]:
    """A report's values without its seconds, which alone may differ between two runs."""
    return _without_seconds
