"""Randomness without a generator: a hash of (seed, sample, lane, tag, step, element).

Noise is redrawn instead of stored, and does not depend on batch size, order or chunking. The mixer
is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ._problem import Problem

_BLOCK = 16_384
GOLDEN = -7046029254386353131  # 2^64 divided by the golden ratio, as a signed 64-bit integer


def mix(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64, in place."""
    if bits.device.type == "cpu":
        # numpy has unsigned integers, and multiplies them in a third of torch's time.
        whole = bits.numpy().view(np.uint64)
        shifted = np.empty_like(whole)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            np.bitwise_xor(whole, np.right_shift(whole, shift, out=shifted), out=whole)
            np.multiply(whole, np.uint64(factor), out=whole)
        np.bitwise_xor(whole, np.right_shift(whole, 31, out=shifted), out=whole)
        return bits
    return _mix(bits)


def _mix(bits: Tensor) -> Tensor:
    """The same with torch's signed integers, on any device."""
    # They are shifted arithmetically: the mask drops the copies of the sign bit.
    bits.bitwise_xor_((bits >> 30).bitwise_and_(0x3FFFFFFFF)).mul_(-4658895280553007687)
    bits.bitwise_xor_((bits >> 27).bitwise_and_(0x1FFFFFFFFF)).mul_(-7723592293110705685)
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x1FFFFFFFF))


def uniform(problem: Problem, tag: int, step: Tensor | int, elements: int) -> Tensor:
    """Uniform numbers in (0, 1), each row's own, in 23-bit steps.

    (B, elements) for one step or a step for each row (B,); (B, M, elements) for steps (B, M).
    """
    return _drawn(problem, tag, step, elements, lambda low, high: None)


def uniform_of(problem: Problem, tag: int, step: Tensor, row: Tensor, element: Tensor) -> Tensor:
    """Uniform numbers (n,) in (0, 1) for some elements (n,) of some rows (n,), as in `uniform`.

    Not the same numbers: where few elements are looked at, the others need not be drawn.
    """
    bits = mix(_keys(problem, tag, step)[row] + (element + 1) * GOLDEN)
    return (bits >> 41).bitwise_and_(0x7FFFFF).float().add_(0.5).mul_(2**-23)


def normal(problem: Problem, tag: int, step: Tensor | int, elements: int) -> Tensor:
    """Standard normal numbers, in the shape of `uniform`, by Box and Muller."""
    return _drawn(problem, tag, step, elements, _box_muller)


def spread(problem: Problem, tag: int, step: Tensor, elements: int) -> Tensor:
    """Uniform numbers in (-1, 1) in 16-bit steps, (B, M, elements) for steps (B, M).

    For directions, which need no more than a mean of zero and an equal spread: four of a hash, a
    fifth of what normal numbers cost.
    """
    key = _keys(problem, tag, step)
    quarter = (elements + 3) // 4
    counter = torch.arange(1, quarter + 1, device=key.device) * GOLDEN
    rows = key.reshape(-1, 1)
    out = torch.empty(len(rows), 4 * quarter, device=key.device)
    size = max(1, _BLOCK // quarter)
    for begin in range(0, len(rows), size):
        block = out[begin : begin + size]
        block.copy_(mix(rows[begin : begin + size] + counter).view(torch.int16))
        block.add_(0.5).mul_(2**-15)
    return out[:, :elements].reshape(*key.shape, elements)


def _keys(problem: Problem, tag: int, step: Tensor | int) -> Tensor:
    key, lane = problem.key, problem.lane
    if isinstance(step, Tensor) and step.ndim == 2:
        key, lane = key[:, None], lane[:, None]
    for part in (torch.full_like(key, problem.seed), lane, tag, step):
        key = mix(key + GOLDEN + part)
    return key


def _drawn(
    problem: Problem,
    tag: int,
    step: Tensor | int,
    elements: int,
    shape: Callable[[Tensor, Tensor], None],
) -> Tensor:
    key = _keys(problem, tag, step)
    # One hash of 64 bits gives two numbers, and blocks of rows stay in the processor's cache.
    half = (elements + 1) // 2
    counter = torch.arange(1, half + 1, device=key.device) * GOLDEN
    rows = key.reshape(-1, 1)
    out = torch.empty(len(rows), 2 * half, device=key.device)
    size = max(1, _BLOCK // half)
    for begin in range(0, len(rows), size):
        bits, block = mix(rows[begin : begin + size] + counter), out[begin : begin + size]
        low, high = block[:, :half], block[:, half:]
        low.copy_((bits >> 41).bitwise_and_(0x7FFFFF))
        high.copy_((bits >> 18).bitwise_and_(0x7FFFFF))
        block.add_(0.5).mul_(2**-23)
        shape(low, high)
    return out[:, :elements].reshape(*key.shape, elements)


def _box_muller(low: Tensor, high: Tensor) -> None:
    """Two uniform numbers in (0, 1) to two standard normal ones, in place."""
    radius, angle = low.log().mul_(-2).sqrt_(), high * (2 * math.pi)
    low.copy_(angle.cos().mul_(radius))
    high.copy_(angle.sin_().mul_(radius))
