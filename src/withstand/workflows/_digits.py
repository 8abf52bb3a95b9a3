"""Handwritten digits for demonstrations, and how a small network learns them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..data import Dataset, load_sklearn

_TRAINED = 1497


def digits(limit: int | None = None) -> tuple[Dataset, Dataset]:
    """1,497 digits to train on and the other 300, or the first of them, to evaluate on."""
    found = load_sklearn("digits")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).numpy()
    return found.take(order[:_TRAINED]), found.take(order[_TRAINED:][:limit])


def fit(
    net: nn.Module, x: Tensor, y: Tensor, epochs: int, *,
    begin: Callable[[int], None] = lambda epoch: None,
    inputs: Callable[[int, Tensor, Tensor], Tensor] = lambda epoch, x, y: x,
) -> None:  # fmt: skip
    """Train a network on inputs (N, ...) and classes (N,) by gradient descent with momentum.

    begin: called at each epoch. inputs: what takes the place of a batch.
    """
    weights = list(net.parameters())
    speeds = [torch.zeros_like(weight) for weight in weights]
    for epoch in range(epochs):
        begin(epoch)
        for rows in torch.split(torch.randperm(len(x)), 64):
            loss = cross_entropy(net(inputs(epoch, x[rows], y[rows])), y[rows])
            slopes = torch.autograd.grad(loss, weights)
            # Momentum by hand: torch.optim imports the compiler, which takes longer than all this.
            with torch.no_grad():
                for weight, speed, slope in zip(weights, speeds, slopes, strict=True):
                    weight.sub_(0.05 * speed.mul_(0.9).add_(slope))
