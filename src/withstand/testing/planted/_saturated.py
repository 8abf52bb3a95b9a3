"""Networks so sure of themselves that cross-entropy rounds to zero, and its gradient with it."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ._surgery import renewed, trained


def scaled(net: nn.Module, *, factor: float = 100.0) -> nn.Module:
    """The net with its logits times a factor: the same answers at every input."""
    return _Scaled(deepcopy(net), factor).eval()


def distilled(
    net: nn.Module,
    x: Tensor,
    *,
    temperature: float = 100.0,
    steps: int = 500,
    seed: int = 0,
) -> nn.Module:
    """Defensive distillation (Papernot et al. 2016, section IV): a net of the same kind trained at
    a temperature T on the first one's answers, and used at T = 1.

    x: training inputs (N, ...) in [0, 1].
    """
    student = renewed(net, seed)
    with torch.no_grad():
        soft = deepcopy(net).eval()(x).softmax(1)

    def loss(rows: Tensor) -> Tensor:
        return cross_entropy(student(x[rows]) / temperature, soft[rows])

    return trained(student, len(x), loss, steps=steps, rate=5e-3, seed=seed)


class _Scaled(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.factor * self.net(x)
        return out
