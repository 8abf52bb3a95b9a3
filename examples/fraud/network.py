"""A small network on the same table."""

from __future__ import annotations

import torch
from simulate import COLUMNS
from torch import Tensor, nn

# Shares and flags as they are, numbers and money by their logarithm.
PLAIN = [name.startswith("risk") or name in ("hour", "night", "weekend") for name in COLUMNS]


class Network(nn.Module):
    """Scores (B, 2) of rows (B, F) as the table has them."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("plain", torch.tensor(PLAIN))
        self.layers = nn.Sequential(
            nn.BatchNorm1d(len(COLUMNS)),
            nn.Linear(len(COLUMNS), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )

    def forward(self, rows: Tensor) -> Tensor:
        squeezed = rows.sign() * rows.abs().log1p()
        return self.layers(torch.where(self.plain, rows, squeezed))


def build() -> nn.Module:
    torch.manual_seed(0)
    return Network()
