"""Several scores on one scale: how rare each is among benign inputs."""

from __future__ import annotations

import torch
from torch import Tensor

_KNOTS = 64
_LEAST_SLOPE = 1e-6


def tails(scores: Tensor) -> Tensor:
    """The map from a score to its rarity, from benign scores (N,): knots (3, K) for `rarity`.

    Rarity is -log of the conformal p-value, (1 + #{s_i >= s}) / (N + 1), between the knots linear.
    Beyond the largest score it goes on as an exponential tail does, so that no two extreme scores
    become equal and an attacker sees a slope everywhere. Rows: where a piece begins, the rarity
    there, its slope.
    """
    values = scores.detach().double().sort().values
    n = len(values)
    # Evenly spaced rarities are dense towards the rare end, where it matters.
    wanted = torch.linspace(0, float(torch.tensor(n + 1.0).log()), _KNOTS, dtype=torch.float64)
    rank = ((n + 1) * (1 - (-wanted).exp())).floor().clamp(0, n - 1).long()
    x, y = values[rank], -((n - rank) / (n + 1)).log()
    # Of equal scores the first has the largest share at or above it.
    first = torch.ones(_KNOTS, dtype=torch.bool)
    first[1:] = x[1:] > x[:-1]
    x, y = x[first], y[first]
    if len(x) == 1:
        return torch.stack((x, y, torch.ones_like(x))).float()
    # The tail's slope is that of the rarer half, since the last knots are noisy.
    half = int(torch.searchsorted(y, y[-1] / 2).clamp(max=len(y) - 2))
    tail = (y[-1:] - y[half]) / (x[-1:] - x[half])
    slope = torch.cat((torch.diff(y) / torch.diff(x), tail)).clamp_min(_LEAST_SLOPE)
    return torch.stack((x, y, slope)).float()


def rarity(knots: Tensor, scores: Tensor) -> Tensor:
    """The rarity (B,) of scores (B,), by the knots that `tails` gave; rises everywhere."""
    x, y, slope = knots.unbind()
    place = torch.searchsorted(x, scores.detach().contiguous(), right=True).sub_(1).clamp_min_(0)
    return torch.addcmul(y[place], slope[place], scores - x[place])
