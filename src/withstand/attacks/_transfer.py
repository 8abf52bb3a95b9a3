"""Gradient ascent for examples that carry over to models which the attacker does not see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from math import exp
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .._errors import ThreatError
from ..threat import Access
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._noise import normal, uniform
from ._pgd import random_start, steepest
from ._problem import Problem

_SMALLEST = 0.9
_START, _SHAPE, _NEAR = 1, 3, 4


class _State(NamedTuple):
    points: Tensor
    velocity: Tensor
    variance: Tensor
    gradient: Tensor
    total: Tensor
    asked: Tensor


@dataclass(frozen=True, kw_only=True)
class TransferPGD(Attack):
    """Projected gradient descent whose gradient is treated so that it transfers, Linf or L2.

    Four treatments that compose, each off at 0. momentum: the decay of the sum of normed gradients
    (Dong et al. 2018). diversity: the share of gradients taken at a copy shrunk to 90 to 100 % of
    its size and padded with zeros (Xie et al. 2019). smoothing: the width, odd and in pixels, of
    the Gaussian that smooths gradients, which are then those of shifted images (Dong et al. 2019).
    variance: the neighbours, within 1.5 radii, whose mean gradient corrects the next step's (Wang
    and He 2021). Raises ThreatError for settings out of range, and for diversity and smoothing of
    what is no image (C, H, W).

    step_size: share of the radius, 1 / steps if not given. Use `craft` for examples that go on
    growing behind the boundary. 1 + variance forwards and backwards a step.
    """

    steps: int = 10
    step_size: float | None = None
    loss: str = "ce"
    momentum: float = 1.0
    diversity: float = 0.0
    smoothing: int = 0
    variance: int = 0
    random_start: bool = False
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2")

    def __post_init__(self) -> None:
        if not (self.momentum >= 0 and 0 <= self.diversity <= 1 and self.variance >= 0):
            raise ThreatError(
                f"momentum, diversity and variance are {self.momentum:g}, {self.diversity:g} and "
                f"{self.variance}; give at least 0, and a diversity of at most 1"
            )
        if self.smoothing < 0 or (self.smoothing and self.smoothing % 2 == 0):
            raise ThreatError(f"smoothing is {self.smoothing}; give an odd width, or 0 for none")
        super().__post_init__()

    def init(self, problem: Problem) -> _State:
        if (self.diversity or self.smoothing) and problem.x.ndim != 4:
            raise ThreatError(
                f"diversity and smoothing are for images (C, H, W), an input has shape "
                f"{tuple(problem.x.shape[1:])}; set both to 0"
            )
        start = random_start(problem, _START) if self.random_start else problem.x
        zero = torch.zeros_like(start)
        return _State(start, zero, zero, zero, zero, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        # Each step asks its point and then the neighbours; at the end the last point is judged.
        last = self.steps * (1 + self.variance)
        points = state.points
        if self.variance:
            beside = state.asked % (1 + self.variance) > 0
            near = points + self._offset(problem, state.asked)
            points = torch.where(problem.column(beside), near, points)
        if self.diversity:
            points = self._shape(problem, state.asked, last).forth(points)
        return Query(points, state.asked <= last, partial(loss, self.loss, problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        fresh = seen.gradient
        if self.diversity:
            last = self.steps * (1 + self.variance)
            fresh = self._shape(problem, state.asked, last).back(fresh)
        if not self.variance:
            return self._moved(problem, state, fresh, state.variance)
        phase = state.asked % (1 + self.variance)
        first, done = problem.column(phase == 0), problem.column(phase == self.variance)
        gradient = torch.where(first, fresh, state.gradient)
        total = torch.where(first, 0.0, state.total + fresh)
        moved = self._moved(problem, state, gradient, total / self.variance - gradient)
        return _State(
            points=torch.where(done, moved.points, state.points),
            velocity=torch.where(done, moved.velocity, state.velocity),
            variance=torch.where(done, moved.variance, state.variance),
            gradient=gradient,
            total=total,
            asked=moved.asked,
        )

    def _moved(self, problem: Problem, state: _State, gradient: Tensor, variance: Tensor) -> _State:
        """The state after a step along this gradient; the new variance serves the next one."""
        slope = gradient + state.variance if self.variance else gradient
        if self.smoothing:
            slope = smoothed(slope, self.smoothing)
        # Saturated losses have tiny gradients, whose signs still count: the guard is lower still.
        normed = slope / problem.column(length(slope, "l1").clamp_min(1e-30))
        velocity = self.momentum * state.velocity + normed
        share = 1 / self.steps if self.step_size is None else self.step_size
        size = problem.column(share * problem.eps)
        points = project(problem, state.points + size * steepest(problem, velocity))
        return _State(points, velocity, variance, gradient, state.total, state.asked + 1)

    def _offset(self, problem: Problem, asked: Tensor) -> Tensor:
        """From a point to its neighbour: uniform in the Linf ball, of random length in L2."""
        shape, size = problem.x.shape, problem.x[0].numel()
        radius = 1.5 * problem.eps
        if problem.norm == "linf":
            spread = 2 * uniform(problem, _NEAR, asked, size).reshape(shape) - 1
        else:
            spread = normal(problem, _NEAR, asked, size).reshape(shape)
            radius = radius * uniform(problem, _NEAR + 1, asked, 1)[:, 0] / length(spread, "l2")
        return problem.column(radius) * spread

    def _shape(self, problem: Problem, asked: Tensor, last: int) -> _Shape:
        # A point and its neighbours share a copy's shape, so that only their places differ.
        drawn = uniform(problem, _SHAPE, asked // (1 + self.variance), 4)
        chosen = (drawn[:, 0] < self.diversity) & (asked < last)
        height, width = problem.x.shape[2:]
        rows = _axis(height, drawn[:, 1], drawn[:, 2], chosen, problem.x.dtype)
        columns = _axis(width, drawn[:, 1], drawn[:, 3], chosen, problem.x.dtype)
        return _Shape(rows, columns)


class _Axis(NamedTuple):
    """Whence the pixels (B, size) of a copy come along one axis, and where an image's go.

    A copy's pixel lies between image pixel `source` and the next one, nearer to that by `share`;
    held: whether it is no padding. As the copy is not larger, no two of its pixels have the same
    source: `copied` is the one that an image's pixel is the source of, if `known`.
    """

    source: Tensor
    share: Tensor
    held: Tensor
    copied: Tensor
    known: Tensor


class _Shape(NamedTuple):
    """A resized and padded copy, bilinear, and its adjoint.

    Both are sums of two in a fixed order, so that nothing depends on the batch. In trials copies
    made by nearest neighbours, as in the authors' code, transferred less: what they leave out has
    no gradient.
    """

    rows: _Axis
    columns: _Axis

    def forth(self, x: Tensor) -> Tensor:
        """The copies (B, C, H, W) of images x."""
        # Zero may lie outside a domain; what the image itself contains does not.
        blank = torch.zeros_like(x[:, 0, 0, 0]).clamp(x.flatten(1).amin(1), x.flatten(1).amax(1))
        copy = _forth(_forth(x, self.rows, 2), self.columns, 3)
        return torch.where(self._held(), copy, blank[:, None, None, None])

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient (B, C, H, W) at the images of one at their copies."""
        inside = torch.where(self._held(), gradient, 0.0)
        return _back(_back(inside, self.rows, 2), self.columns, 3)

    def _held(self) -> Tensor:
        return self.rows.held[:, None, :, None] & self.columns.held[:, None, None]


def _along(values: Tensor, dim: int) -> Tensor:
    """Values (B, size) shaped to meet images (B, C, H, W) along an axis."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None]


def _gathered(x: Tensor, index: Tensor, dim: int) -> Tensor:
    return x.gather(dim, _along(index, dim).expand_as(x))


def _forth(x: Tensor, axis: _Axis, dim: int) -> Tensor:
    lower = _gathered(x, axis.source, dim)
    upper = _gathered(x, (axis.source + 1).clamp_max(x.shape[dim] - 1), dim)
    return lower + _along(axis.share, dim) * (upper - lower)


def _back(gradient: Tensor, axis: _Axis, dim: int) -> Tensor:
    there = torch.where(_along(axis.known, dim), _gathered(gradient, axis.copied, dim), 0.0)
    share = _along(axis.share.gather(1, axis.copied), dim) * there
    # What went to the next pixel was multiplied by the rest.
    found = there - share
    size = gradient.shape[dim]
    found.narrow(dim, 1, size - 1).add_(share.narrow(dim, 0, size - 1))
    return found


def _axis(size: int, scale: Tensor, place: Tensor, chosen: Tensor, dtype: torch.dtype) -> _Axis:
    """One axis of copies of a drawn length at a drawn place; of its own where not chosen (B,)."""
    least = max(1, int(_SMALLEST * size))
    length = torch.where(chosen, least + (scale * (size - least + 1)).long(), size)
    start = (place * (size - length + 1)).long()[:, None]
    length, pixel = length[:, None], torch.arange(size, device=scale.device)
    inner = pixel - start
    held = (inner >= 0) & (inner < length)
    # Centres lie half a pixel in.
    centre = ((2 * inner + 1) * size - length).clamp_min(0)
    source = (centre // (2 * length)).clamp_max(size - 1)
    share = (centre - 2 * length * source).to(dtype) / (2 * length)
    # The place after the last one takes what has no source.
    copied = torch.full((len(source), size + 1), -1, device=scale.device)
    copied.scatter_(1, torch.where(held, source, size), pixel.expand_as(source))
    copied = copied[:, :size]
    return _Axis(source, share, held, copied.clamp_min(0), copied >= 0)


def smoothed(gradient: Tensor, width: int) -> Tensor:
    """Images (B, C, H, W) under a Gaussian of odd width in pixels and three sigmas a side."""
    for axis in (2, 3):
        size, total = gradient.shape[axis], torch.zeros_like(gradient)
        for shift, weight in enumerate(_bell(width), -(width // 2)):
            kept = size - abs(shift)
            if kept > 0:
                # Sums of shifts in a fixed order, since a convolution's depends on the batch.
                part = weight * gradient.narrow(axis, max(0, shift), kept)
                total.narrow(axis, max(0, -shift), kept).add_(part)
        gradient = total
    return gradient


@lru_cache
def _bell(width: int) -> tuple[float, ...]:
    half = width // 2
    heights = [exp(-0.5 * (3 * i / max(half, 1)) ** 2) for i in range(-half, half + 1)]
    return tuple(height / sum(heights) for height in heights)
