"""Randomness without a generator: a hash of (seed, sample, lane, tag, step, element).

Noise is redrawn instead of stored, and does not depend on batch size, order or chunking. The mixer
is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._problem import Problem

_GOLDEN = -7046029254386353131  # 2^64 divided by the golden ratio, as a signed 64-bit integer


def _mix(bits: Tensor) -> Tensor:
    # torch shifts signed integers arithmetically: the mask drops the copies of the sign bit.
    bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return bits ^ ((bits >> 31) & 0x1FFFFFFFF)


def uniform(problem: Problem, tag: int, step: Tensor | int, elements: int) -> Tensor:
    """Uniform numbers in (0, 1), (B, elements): each row's own, in 23-bit steps."""
    key = problem.key
    for part in (torch.full_like(key, problem.seed), problem.lane, tag, step):
        key = _mix(key + _GOLDEN + part)
    counter = torch.arange(1, elements + 1, device=key.device) * _GOLDEN
    bits = (_mix(key[:, None] + counter) >> 41) & 0x7FFFFF
    return (bits.to(torch.float32) + 0.5) * 2**-23


def normal(problem: Problem, tag: int, step: Tensor | int, elements: int) -> Tensor:
    """Standard normal numbers (B, elements), by Box and Muller."""
    half = (elements + 1) // 2
    radius, angle = uniform(problem, tag, step, 2 * half).chunk(2, 1)
    radius, angle = (-2 * radius.log()).sqrt(), 2 * math.pi * angle
    return torch.cat((radius * angle.cos(), radius * angle.sin()), 1)[:, :elements]
