"""Gaussian noise without a generator: a hash of (seed, input, number of the draw, element)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..attacks._noise import GOLDEN, mix

_BLOCK = 65_536
_LEAST = 2.0**-33


def draw_keys(keys: Tensor, draws: Tensor, seed: int) -> Tensor:
    """A key (B,) for each draw, from the inputs' keys (B,) and the draws' numbers (B,)."""
    mixed = mix(keys + GOLDEN + seed)
    return mix(mixed + GOLDEN + draws)


def gaussian(keys: Tensor, elements: int) -> Tensor:
    """Standard normal numbers (B, elements), each row's own by its key (B,); no element repeats.

    Pairs by Box and Muller from 64 bits of SplitMix64 each; none is larger than 6.8.
    """
    # Blocks of rows stay in the processor's cache.
    half = (elements + 1) // 2
    counter = torch.arange(1, half + 1, device=keys.device) * GOLDEN
    out = torch.empty(len(keys), 2 * half, device=keys.device)
    size = max(1, _BLOCK // half)
    for begin in range(0, len(keys), size):
        bits = mix(keys[begin : begin + size, None] + counter)
        block = out[begin : begin + size]
        block.copy_(bits.view(torch.int32))
        radius, angle = block[:, :half], block[:, half:]
        # 0 has no logarithm; the angle may be any, since it turns around.
        radius.mul_(2.0**-32).add_(0.5).clamp_min_(_LEAST).log_().mul_(-2).sqrt_()
        angle.mul_(2 * math.pi * 2.0**-32)
        sine = angle.sin()
        angle.cos_().mul_(radius)
        radius.mul_(sine)
    return out[:, :elements]
