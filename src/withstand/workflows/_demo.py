"""The main job in a minute: a standard and a hardened network on embedded data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..evaluate import Progress, Report, evaluate
from ..models import Model, TorchModel
from ..threat import Linf, Threat
from ._digits import digits, fit
from ._networks import build
from ._transfer import TransferMatrix, transfer_matrix

_EPS = 0.15


class Demo(NamedTuple):
    """Reports by the model's name, and who fools whom."""

    reports: dict[str, Report]
    transfer: TransferMatrix


def demo(progress: Callable[[Progress], None] | None = None, *, limit: int | None = None) -> Demo:
    """Train both networks on 1,497 digits and evaluate them on the other 300.

    limit: evaluate only so many. Takes about half a minute on one core.
    """

    def tell(name: str) -> Callable[[Progress], None]:
        return lambda now: progress and progress(replace(now, stage=f"{name}: {now.stage}"))

    train, test = digits(limit)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    threat = Threat(region=Linf(_EPS))
    models: dict[str, Model] = {}
    reports = {}
    for name, radius in (("standard", 0.0), ("hardened", _EPS)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = _trained(x, y, radius, tell(name))
        models[name] = TorchModel(net)
        reports[name] = evaluate(models[name], test, threat, progress=tell(name))
    return Demo(reports, transfer_matrix(models, test, threat))


def _trained(
    x: Tensor, y: Tensor, radius: float, progress: Callable[[Progress], None], epochs: int = 20
) -> nn.Module:
    """A small convolutional network, trained on its worst inputs within the radius."""
    net = build()

    def worst(epoch: int, x: Tensor, y: Tensor) -> Tensor:
        # The radius grows, because a network that knows nothing learns nothing from attacks.
        eps = radius * min(1.0, 2 * (epoch + 1) / epochs)
        return _worst(net, x, y, eps) if eps else x

    fit(
        net, x, y, epochs, inputs=worst,
        begin=lambda epoch: progress(
            Progress(stage="training", done=epoch, total=epochs, fooled=0)
        ),
    )  # fmt: skip
    return net


def _worst(net: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 3) -> Tensor:
    """The inputs after a few steps of projected gradient ascent (Madry et al. 2018)."""
    moved = x + torch.empty_like(x).uniform_(-eps, eps)
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(net(moved), y), moved)
        moved = moved + eps / 2 * gradient.sign()
        moved = torch.clamp(moved, x - eps, x + eps).clamp(0, 1)
    return moved.detach()
