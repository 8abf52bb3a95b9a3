"""Activations with jumps everywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..._errors import ModelError
from ._surgery import named, rewired, trained


def kwta(
    net: nn.Module,
    x: Tensor | None = None,
    y: Tensor | None = None,
    *,
    ratio: float = 0.2,
    steps: int = 200,
    seed: int = 0,
) -> nn.Module:
    """The net with k-winners-take-all in place of its ReLUs (Xiao et al. 2020, eq. 1).

    ratio: the share of each layer's features that stays. x (N, ...) and y (N,): data to train the
    net on afterwards, else it is left as it is. Raises ModelError for a net without nn.ReLU. More
    than a mask where small activations carry what was added to x, as on MNIST.
    """
    names = named(net, [nn.ReLU])
    if not names:
        raise ModelError("the network has 0 modules nn.ReLU; plant in one with 1 or more")
    jumpy = rewired(net, names, lambda _: _Winners(ratio))
    if x is None or y is None:
        return jumpy
    data, labels = x, y

    def loss(rows: Tensor) -> Tensor:
        return cross_entropy(jumpy(data[rows]), labels[rows])

    return trained(jumpy, len(data), loss, steps=steps, rate=1e-3, seed=seed)


class _Winners(nn.Module):
    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, round(self.ratio * flat.shape[1])), 1).values[:, -1:]
        return torch.where(flat >= least, flat, 0.0).reshape(x.shape)
