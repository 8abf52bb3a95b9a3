"""The networks under test, trained here on MNIST and kept in benchmarks/.cache."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import withstand

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
DATA = Path(os.environ.get("WITHSTAND_DATA", HERE.parents[1] / "shared" / "data"))


@cache
def code() -> str:
    """A digest of withstand's source: what one version measured is kept for that version alone."""
    digest = hashlib.sha256()
    for file in sorted(Path(withstand.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def mnist(part: str, n: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 28, 28) in [0, 1] and labels (n,) of `train` or `test`, from the first on."""
    chosen = slice(first, None if n is None else first + n)
    with np.load(DATA / "mnist.npz") as file:
        x, y = file[f"x_{part}"][chosen], file[f"y_{part}"][chosen]
    return torch.from_numpy(x).float()[:, None] / 255, torch.from_numpy(y).long()


class Scale(nn.Module):
    """Logits times a factor: the same decisions, and a cross-entropy without gradient."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Quantise(nn.Module):
    """Inputs rounded to a number of levels: no gradient at all."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (x * (self.levels - 1)).round() / (self.levels - 1)


def small() -> nn.Sequential:
    """The MNIST network of fast adversarial training (Wong et al. 2020)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def larger() -> nn.Sequential:
    """The MNIST network of TRADES (Zhang et al. 2019): for timings only."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 200),
        nn.ReLU(),
        nn.Linear(200, 200),
        nn.ReLU(),
        nn.Linear(200, 10),
    )


def _standard(net: nn.Module, epochs: int) -> None:
    x, y = mnist("train")
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()


def _fast(net: nn.Module, epochs: int, eps: float = 0.3, alpha: float = 0.375) -> None:
    """Fast adversarial training: one FGSM step from a random start (Wong et al. 2020, alg. 3)."""
    _against(net, epochs, eps, alpha, steps=1, rate=5e-3)


def _adversarial(net: nn.Module, epochs: int, eps: float = 0.3) -> None:
    """Adversarial training with PGD of 7 steps (Madry et al. 2018), the radius growing at first."""
    _against(net, epochs, eps, 0.1, steps=7, rate=2e-3, growth=0.4)


def _against(
    net: nn.Module,
    epochs: int,
    most: float,
    alpha: float,
    *,
    steps: int,
    rate: float,
    growth: float = 0.0,
) -> None:
    x, y = mnist("train")
    optimizer = torch.optim.Adam(net.parameters(), rate)
    batches = -(-len(x) // 100)
    for epoch in range(epochs):
        for i, rows in enumerate(torch.randperm(len(x)).split(100)):
            done = (epoch + i / batches) / epochs
            optimizer.param_groups[0]["lr"] = rate * np.interp(done, [0, 0.4, 1], [0, 1, 0])
            eps = most * min(1.0, done / growth) if growth else most
            clean, label = x[rows], y[rows]
            delta = torch.empty_like(clean).uniform_(-eps, eps)
            for _ in range(steps):
                delta = ((clean + delta).clamp(0, 1) - clean).requires_grad_()
                (grad,) = torch.autograd.grad(cross_entropy(net(clean + delta), label), delta)
                delta = (delta.detach() + alpha * grad.sign()).clamp(-eps, eps)
            optimizer.zero_grad()
            cross_entropy(net((clean + delta).clamp(0, 1)), label).backward()
            optimizer.step()


def _trained(name: str) -> nn.Module:
    net = larger() if name == "larger" else small()
    file = CACHE / f"{name}.pt"
    if not file.exists():
        torch.manual_seed(0)
        net = larger() if name == "larger" else small()
        train, epochs = _TRAINING[name]
        train(net, epochs)
        CACHE.mkdir(exist_ok=True)
        torch.save(net.state_dict(), file)
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()


_TRAINING = {
    "standard": (_standard, 3),
    "larger": (_standard, 1),
    "adversarial": (_adversarial, 4),
    "fast": (_fast, 10),
}


def network(name: str) -> nn.Module:
    """standard, adversarial, fast, scaled, quantised, quantised-scaled or larger; in eval mode."""
    if name == "scaled":
        return nn.Sequential(network("standard"), Scale(100.0)).eval()
    if name == "quantised":
        return nn.Sequential(Quantise(16), network("standard")).eval()
    if name == "quantised-scaled":
        return nn.Sequential(Quantise(16), network("scaled")).eval()
    return _trained(name)
