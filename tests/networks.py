"""Small networks that several tests share."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand.data import Dataset, load_npz, load_sklearn
from withstand.models import TorchModel
from withstand.testing.planted._attacks import climbed
from withstand.testing.planted._surgery import trained

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Digits:
    """A network trained on handwritten digits, and 60 digits that it has not seen."""

    net: nn.Module
    data: Dataset

    @property
    def model(self) -> TorchModel:
        return TorchModel(self.net)


def trained_on_digits() -> Digits:
    net = fitted_to_digits(
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
        )
    )
    return Digits(net, load_sklearn("digits").take(np.arange(1500, 1560)))


def fitted_to_digits(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network made and trained on the first 1,500 handwritten digits."""
    data = load_sklearn("digits")
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(8):
            for rows in torch.split(torch.randperm(1500), 64):
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(net(x[rows]), y[rows]))
                optimizer.step()
    return net


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


@dataclass(frozen=True)
class Sound:
    """A network trained soundly, what it was trained on, and samples that it has not seen."""

    net: nn.Module
    x: Tensor
    y: Tensor
    unseen: Dataset


def trained_soundly(folder: Path, data: str, seed: int, eps: float, known: int) -> Sound:
    """The weights are kept in the folder: one worker trains a network for all of them."""
    if data == "mnist":
        path = DATA / "mnist.npz"
        if not path.exists():
            pytest.skip(f"no mnist.npz in {DATA}; set WITHSTAND_DATA")
        train = load_npz(path, "x_train", "y_train", scale=255, limit=6000)
        unseen = load_npz(path, "x_test", "y_test", scale=255, limit=1200)
    else:
        digits = load_sklearn("digits")
        order = np.random.default_rng(0).permutation(len(digits))
        train, unseen = digits.take(order[:known]), digits.take(order[known:])
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=x.shape[-1] // 8, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        net(x[:1])

    def clean(rows: Tensor) -> Tensor:
        return cross_entropy(net(x[rows]), y[rows])

    def attacked(rows: Tensor) -> Tensor:
        worst = climbed(net, x[rows], y[rows], eps=eps, size=eps / 3, steps=5)
        return cross_entropy(net(worst), y[rows])

    place = folder / f"{data}-{seed}-{eps}-{known}.pt"
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            net.load_state_dict(torch.load(place, weights_only=True))
            return Sound(net.eval(), x, y, unseen)
        trained(net, len(x), clean, steps=500, rate=3e-3, seed=seed)
        if eps:
            trained(net, len(x), attacked, steps=800, rate=2e-3, seed=seed)
        torch.save(net.state_dict(), place)
    return Sound(net, x, y, unseen)
