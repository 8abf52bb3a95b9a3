"""Several scores on one scale: how rare each is among benign inputs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import isnan, nan

import numpy as np
import torch
from torch import Tensor

_KNOTS = 64
_LEAST_SLOPE = 1e-6
_PEAKS = 20


def tails(scores: Tensor) -> Tensor:
    """The map from a score to its rarity, from benign scores (N,): knots (3, K) for `rarity`.

    Rarity is -log of the conformal p-value, (1 + #{s_i >= s}) / (N + 1), between the knots linear.
    From about the 20th largest score on it is that of an exponential tail (Pickands 1975), since
    single extremes are noisy; so no two of them become equal and an attacker sees a slope.
    Rows: where a piece begins, the rarity there, its slope.
    """
    return several_tails(scores[:, None])[:, 0]


def several_tails(scores: Tensor) -> Tensor:
    """The maps of several scores (N, M) at once: knots (3, M, K) for `rarities`."""
    columns = np.ascontiguousarray(scores.detach().double().cpu().numpy().T)
    # numpy sorts in a seventh of torch's time.
    values = torch.from_numpy(np.sort(columns, 1)).to(scores.device)
    n = values.shape[1]
    last = n - max(1, min(_PEAKS, n // 5))
    # Evenly spaced rarities are dense towards the rare end, where it matters.
    most = torch.tensor((n + 1) / (n - last)).log().item()
    wanted = torch.linspace(0, most, _KNOTS, dtype=torch.float64)
    rank = ((n + 1) * (1 - (-wanted).exp())).floor().clamp(0, last).long().to(values.device)
    # Where most scores are equal, the tail begins with those that are not.
    peak = values[:, last : last + 1].contiguous()
    above = torch.searchsorted(values, peak, right=True)
    begin = torch.where((values[:, last - 1 : last] == peak) & (above < n), above, last)
    rank = torch.cat((rank.expand(len(values), -1), begin), 1)
    x, y = values.gather(1, rank), -((n - rank) / (n + 1)).log()
    # Of equal scores the first has the largest share at or above it.
    later = torch.nn.functional.pad(x[:, 1:] == x[:, :-1], (1, 0))
    y = y.masked_fill(later, 0).cummax(1).values
    excess = (values - x[:, -1:]).clamp_min(0).sum(1) / (n - 1 - begin[:, 0]).clamp_min(1)
    for other in (x[:, -1] - x[:, 0], torch.ones_like(excess)):
        # Equal scores have no tail of their own.
        excess = torch.where(excess > 0, excess, other)
    # Pieces between equal scores are never entered.
    slope = y.diff(dim=1) / x.diff(dim=1).masked_fill(later[:, 1:], 1)
    slope = torch.cat((slope, 1 / excess[:, None]), 1).clamp_min(_LEAST_SLOPE)
    return torch.stack((x, y, slope)).float()


def rarity(knots: Tensor, scores: Tensor) -> Tensor:
    """The rarity (B,) of scores (B,), by the knots that `tails` gave; rises everywhere."""
    if plain(scores) and len(scores) == 1:
        return scores.new_tensor([rarest(knots, scores.tolist())])
    place = torch.searchsorted(knots[0, 1:], scores.detach().contiguous(), right=True)
    x, y, slope = knots[:, place].unbind()
    return torch.addcmul(y, slope, scores - x)


def edges(knots: Tensor) -> Tensor:
    """Where each piece ends but the last, (M, K - 1), of knots (3, M, K); a copy."""
    return knots[0, :, 1:].clone(memory_format=torch.contiguous_format)


def rarities(knots: Tensor, scores: Tensor, ends: Tensor | None = None) -> Tensor:
    """The rarities (M, B) of several scores (M, B), by the knots (3, M, K) of each.

    ends: the `edges` of these knots where they are at hand.
    """
    values = scores.detach().contiguous()
    place = torch.searchsorted(edges(knots) if ends is None else ends, values, right=True)
    x, y, slope = knots.gather(2, place.expand(3, -1, -1)).unbind()
    return torch.addcmul(y, slope, scores - x)


def plain(scores: Tensor) -> bool:
    """Whether nobody follows what becomes of scores, so that they may leave torch."""
    return not scores.requires_grad and torch._C._get_tracing_state() is None


def rarest(knots: Tensor, scores: Sequence[float]) -> float:
    """The largest of the `rarities` of one input's scores (M,), by knots (3, M, K) or (3, K).

    In plain numbers, since torch would spend most of the time of one input on calls.
    """
    found = []
    for (x, y, slope), score in zip(_pieces(knots), scores, strict=True):
        place = bisect_right(x, score, 1) - 1
        found.append(y[place] + slope[place] * (score - x[place]))
    return nan if any(map(isnan, found)) else max(found)


@lru_cache(maxsize=64)
def _pieces(knots: Tensor) -> list[list[list[float]]]:
    # The key is the tensor itself and not its values: a state never changes.
    pieces: list[list[list[float]]] = knots.reshape(3, -1, knots.shape[-1]).transpose(0, 1).tolist()
    return pieces
