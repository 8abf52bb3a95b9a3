"""What a training has come to since it was last asked."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Mean loss and share of right answers since it was last read.

    Summed where the tensors are: reading a value in each step would wait for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.right = torch.zeros((), dtype=torch.long, device=device)
        self.asked = 0

    def add(self, loss: Tensor, scores: Tensor, y: Tensor) -> None:
        """Take in a batch."""
        self.loss += loss.detach() * len(y)
        self.right += (scores.detach().argmax(1) == y).sum()
        self.asked += len(y)

    def read(self) -> tuple[float, float, int]:
        """Loss, share and count; starts again."""
        found = float(self.loss) / self.asked, float(self.right) / self.asked, self.asked
        self.loss.zero_()
        self.right.zero_()
        self.asked = 0
        return found
