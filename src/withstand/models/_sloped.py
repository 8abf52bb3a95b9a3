"""The answers of one thing with the slope of another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Sloped(nn.Module):
    """Answers of a function to x (B, ...), with the slope of a network that says nearly the same.

    As of a quantised network and the same one without its roundings (BPDA, Athalye et al. 2018).
    """

    def __init__(self, answers: Callable[[Tensor], Tensor], slope: nn.Module) -> None:
        super().__init__()
        self.answers, self.slope = answers, slope

    def forward(self, x: Tensor) -> Tensor:
        """The answers; without gradients the network is not asked."""
        with torch.no_grad():
            answers = self.answers(x.detach())
        if not (torch.is_grad_enabled() and x.requires_grad):
            return answers
        out: Tensor = self.slope(x)
        # The difference is zero to the last bit.
        return answers.to(out.dtype) + (out - out.detach())
