"""Two small classifiers of digits, and the data that all of the loop is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...data import load_sklearn

SOURCE = '''\
"""The classifiers of digits, 8x8 pixels of 0 to 1."""

from torch import Tensor, nn


def build() -> nn.Module:
    """A small convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Lean(nn.Module):
    """Half the numbers: how pixels differ from their neighbours, and one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        across = x - x.roll(1, -1)
        return self.net((across - across.roll(1, -2)).flatten(1)[:, ::2])


def lean() -> nn.Module:
    """A cheaper network that is nearly as accurate, and much easier to fool."""
    return Lean()
'''
"""What `model.py` holds, beside the weights in their files."""

_TRAINED = 1497


def make(folder: Path) -> None:
    """Write data, model.py, and the weights of both classifiers to a folder; half a minute."""
    from safetensors.torch import save_file

    digits = load_sklearn("digits")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0)).numpy()
    train, test = digits.take(order[:_TRAINED]), digits.take(order[_TRAINED:])
    np.savez(folder / "data.npz", x_train=train.x, y_train=train.y, x_test=test.x, y_test=test.y)
    (folder / "model.py").write_text(SOURCE)
    known: dict[str, object] = {"__name__": "model"}
    exec(compile(SOURCE, "model.py", "exec"), known)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    for factory, file, epochs in (("build", "v1", 8), ("lean", "v2", 20)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net: nn.Module = known[factory]()  # type: ignore[operator]
            _train(net, x, y, epochs)
        save_file(net.state_dict(), folder / f"{file}.safetensors")


def _train(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    weights = list(net.parameters())
    speeds = [torch.zeros_like(weight) for weight in weights]
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), 64):
            slopes = torch.autograd.grad(cross_entropy(net(x[rows]), y[rows]), weights)
            # By hand: torch.optim imports the compiler, which takes longer than all this.
            with torch.no_grad():
                for weight, speed, slope in zip(weights, speeds, slopes, strict=True):
                    weight.sub_(0.05 * speed.mul_(0.9).add_(slope))
