"""An exponential moving average of weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn


class Average:
    """The average net: weights and batch-norm statistics, averaged over the steps so far.

    decay: of the past in each step; less of it at first, when the past is mostly the beginning.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay, self.steps = deepcopy(net).eval(), decay, 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the net after a step."""
        self.steps += 1
        fresh = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, now in zip(_tensors(self.net), _tensors(net), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, fresh)
            else:
                mean.copy_(now)

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"net": self.net.state_dict(), "steps": self.steps}

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.net.load_state_dict(content["net"])
        self.steps = content["steps"]


def _tensors(net: nn.Module) -> list[torch.Tensor]:
    return [*net.parameters(), *net.buffers()]
