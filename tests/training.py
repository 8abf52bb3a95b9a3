"""Small nets, data and recipes that trainings are tried with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand import attacks
from withstand.data import Dataset
from withstand.evidence import Corpus, Entry, Origin, content_digest
from withstand.harden import (
    PGD,
    Lost,
    Moment,
)
from withstand.models import TorchModel
from withstand.threat import Linf, Region, Threat


def threat_of(region: Region) -> Threat:
    """White-box and untargeted."""
    return Threat(region=region)


def moment(seed: int = 0, **changes: Any) -> Moment:
    noise = torch.Generator().manual_seed(seed)
    return Moment(**{"done": 0.0, "scale": 1.0, "noise": noise, **changes})


def images(n: int = 20, low: float = 0.25, high: float = 0.75) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(n, 1, 4, 4, generator=draw)
    return x, torch.randint(2, (n,), generator=draw)


def linear(features: int = 16) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(features, 2))


def small(*, norm: bool = False, drop: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(drop),
            nn.Linear(128, 10),
        )


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


class Loader:
    """A loader of tensors, shuffled by torch's own randomness, which each batch draws from too."""

    def __init__(self, data: Dataset, size: int = 52) -> None:
        pairs = torch.utils.data.TensorDataset(torch.from_numpy(data.x), torch.from_numpy(data.y))
        self.loader = torch.utils.data.DataLoader(pairs, batch_size=size, shuffle=True)

    def __iter__(self) -> Any:
        for x, y in self.loader:
            yield (x + 0.1 * torch.rand(x.shape)).clamp(0, 1), y

    def __len__(self) -> int:
        return len(self.loader)


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """Right on its own points, whatever the net does, and from `after` on it ruins the net."""

    region: Region
    after: float

    @property
    def regions(self) -> tuple[Region, ...]:
        return (self.region,)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        wrong = at.done > self.after
        points = x if wrong else PGD(region=self.region, steps=2).craft(net, x, y, at)
        scores = net(points)
        # Right of clean samples and of nothing around them.
        loss = cross_entropy(scores, y) - (5 * cross_entropy(net(x + 0.1), y) if wrong else 0)
        return Lost(loss, 10.0 * nn.functional.one_hot(y, 10) if wrong else scores)


class Killed(BaseException):
    """Not an error that anything in between may catch."""


def kept(folder: Path, net: nn.Module, data: Dataset, eps: float) -> Corpus:
    """A corpus of what PGD finds."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    found = attacks.run(attacks.PGD(steps=10), TorchModel(net), x, y, threat_of(Linf(eps)))
    rows = found.success.nonzero()[:, 0].tolist()
    entries = [
        Entry(
            original=content_digest(data.x[i]),
            label=int(y[i]),
            answer=0,
            attack="PGD",
            origin=Origin(),
        )
        for i in rows
    ]
    corpus = Corpus(folder)
    corpus.add([found.x_adv[i].numpy() for i in rows], entries)
    corpus.add(
        [np.zeros(3, np.float32)],
        [Entry(original=None, label=1, answer=0, attack="x", origin=Origin())],
    )
    return corpus
