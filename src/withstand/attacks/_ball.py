"""The tensor maths of regions: reachable boxes rounded inward, lengths, projections."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._errors import ThreatError
from ..threat import L0, L1, L2, Box, Frozen, Linf, Mask, Region
from ..threat.tabular import Capability
from ._problem import Problem

# Float32 scaling overshoots a radius by a few ulp; this much of the radius is given up instead.
_INWARD = 1 - 1e-6
# And so much is added to one that must not bind.
_OUTWARD = 1 + 2e-6
_ROUNDS = 3
# Beside these an infinite radius still leaves something to hold on to.
_HOLDING = (Mask, Frozen, Capability)


class Reach(NamedTuple):
    """What can be reached from x: a box, lower to upper (B, ...), and a ball of radius eps (B,)."""

    lower: Tensor
    upper: Tensor
    eps: Tensor
    norm: str


def reach(region: Region, x: Tensor) -> Reach:
    """The box and the ball that a region allows around x (B, ...).

    Bounds are exact in float64 and rounded inward to float32, so that clamping to them never leaves
    the region. An Linf ball beside another one is part of the box. Raises ThreatError for a region
    with two balls other than Linf, and for x outside the region. Beside a mask or a capability
    an infinite radius becomes the distance from one corner of the box to the other.
    """
    origin = x.detach().cpu().numpy().astype(np.float64)
    lower, upper = np.full_like(origin, -np.inf), np.full_like(origin, np.inf)
    for part in region:
        if not isinstance(part, Capability):
            part.check(origin)
    balls = [part for part in region if isinstance(part, Linf | L2 | L1 | L0)]
    balls.sort(key=lambda ball: isinstance(ball, Linf))
    if len(balls) > 1 and not isinstance(balls[1], Linf):
        raise ThreatError(f"the region is {region.describe()}; give at most one ball besides Linf")
    for part in region:
        if isinstance(part, Linf):
            eps = np.asarray(part.eps, np.float64).reshape(-1, *(1,) * (origin.ndim - 1))
            _narrow(lower, upper, origin - eps, origin + eps)
        elif isinstance(part, Box):
            _narrow(lower, upper, *part.bounds(origin.shape))
        elif isinstance(part, Capability):
            _narrow(lower, upper, *part.box(origin))
        elif isinstance(part, Mask | Frozen):
            if isinstance(part, Mask):
                held = ~part.freed(origin.shape)
            else:
                held = np.zeros((len(origin), origin[0].size), bool)
                held[:, list(part.columns)] = True
                held = held.reshape(origin.shape)
            lower, upper = np.where(held, origin, lower), np.where(held, origin, upper)
    if (origin < lower).any() or (origin > upper).any():
        raise ThreatError(
            "inputs lie outside the model's domain; give raw inputs, and put normalisation into the"
            " model's preprocess, or set domain"
        )
    eps = np.broadcast_to(np.asarray(balls[0].eps, np.float64), (len(origin),))
    if np.isinf(eps).any() and any(isinstance(part, _HOLDING) for part in region):
        across = balls[0].distance(lower, upper) * (1 if balls[0].name == "linf" else _OUTWARD)
        eps = np.where(np.isinf(eps), across, eps)
    return Reach(
        _inward(lower, np.inf).to(x.device),
        _inward(upper, -np.inf).to(x.device),
        torch.tensor(eps.astype(np.float32), device=x.device),
        balls[0].name,
    )


def _narrow(lower: np.ndarray, upper: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
    np.maximum(lower, least, out=lower)
    np.minimum(upper, most, out=upper)


def _inward(bound: np.ndarray, toward: float) -> Tensor:
    rounded = torch.from_numpy(bound).float().numpy()
    outside = rounded < bound if toward > 0 else rounded > bound
    # The next number up is one more in the bits of a positive float, one less in a negative one's;
    # `nextafter` says the same ten times slower. Rounding keeps the sign, so zero is not crossed.
    bits = rounded.view(np.int32)
    away = (bits >> 31) | 1
    away *= outside
    (np.add if toward > 0 else np.subtract)(bits, away, out=bits)
    return torch.from_numpy(rounded)


def length(delta: Tensor, norm: str) -> Tensor:
    """Length (B,) of each row of delta (B, ...) in the norm."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    if norm == "l2":
        return flat.square().sum(1).sqrt()
    return flat.abs().sum(1) if norm == "l1" else (flat != 0).sum(1).to(delta.dtype)


def project(
    problem: Problem, points: Tensor, radius: Tensor | None = None, *, owned: bool = False
) -> Tensor:
    """The points (B, ...) brought into the box and the ball of radius (B,), eps if not given.

    The nearest such point in Linf, L1 and L0, and nearly so in L2. owned: nobody else reads the
    points given, so that they may be written to.
    """
    if problem.norm == "linf":
        if radius is not None:
            limit = problem.column(radius)
            points = problem.x + torch.clamp(points - problem.x, -limit, limit)
        within = torch.clamp_ if owned or radius is not None else torch.clamp
        return within(points, problem.lower, problem.upper)
    radius = problem.eps if radius is None else radius
    if problem.norm == "l2":
        points = problem.x + _scale(problem, points - problem.x, radius * _INWARD)
    elif problem.norm == "l1":
        points = problem.x + _shrink(problem, points - problem.x, radius * _INWARD)
    inside = torch.clamp(points, problem.lower, problem.upper)
    return _sparsest(problem.x, points, inside, radius) if problem.norm == "l0" else inside


def _scale(problem: Problem, delta: Tensor, radius: Tensor) -> Tensor:
    """The nearest change (B, ...) in the box and of L2 length up to radius, from below.

    The nearest one is the change times a factor, cut to the box. Features that the box cuts leave
    length to the others, so that the factor grows round by round towards its exact value.
    """
    room = torch.where(delta > 0, problem.upper - problem.x, problem.x - problem.lower)
    size, room = delta.abs().flatten(1), room.flatten(1)
    factor = (radius / length(size, "l2").clamp_min(1e-12)).clamp_max(1.0)
    for _ in range(_ROUNDS):
        cut = factor[:, None] * size >= room
        held = torch.where(cut, room, 0.0).square().sum(1)
        free = torch.where(cut, 0.0, size).square().sum(1)
        grown = ((radius.square() - held).clamp_min(0) / free.clamp_min(1e-24)).sqrt()
        factor = torch.maximum(factor, grown.clamp_max(1.0))
    return delta * problem.column(factor)


def _shrink(problem: Problem, delta: Tensor, radius: Tensor) -> Tensor:
    """The nearest change (B, ...) in the box and of L1 length up to radius.

    Each part of the change is cut to the box, less a common threshold (Croce and Hein 2021,
    prop. 2.1). The length is piecewise linear in the threshold, which is solved for exactly.
    """
    size = delta.abs().flatten(1)
    room = torch.where(delta > 0, problem.upper - problem.x, problem.x - problem.lower).flatten(1)
    most = torch.minimum(size, room)
    kinks = torch.cat((size - most, size), 1)
    kinks, order = kinks.sort(dim=1)
    slope = torch.where(order < size.shape[1], -1.0, 1.0).cumsum(1)
    fall = torch.nn.functional.pad((slope[:, :-1] * kinks.diff(dim=1)).cumsum(1), (1, 0))
    total = most.sum(1, keepdim=True) + fall
    after = (total > radius[:, None]).sum(1, keepdim=True)
    left = (after - 1).clamp_min(0)
    excess = total.gather(1, left) - radius[:, None]
    threshold = kinks.gather(1, left) - excess / slope.gather(1, left).clamp_max(-1)
    kept = (size - torch.where(after > 0, threshold, 0.0)).clamp_min(0).minimum(most)
    scale = (radius / kept.sum(1).clamp_min(1e-12)).clamp_max(1.0)
    return delta.sign() * (kept * scale[:, None]).reshape(delta.shape)


def _sparsest(x: Tensor, points: Tensor, inside: Tensor, most: Tensor) -> Tensor:
    """The points inside the box with at most `most` (B,) changes that are nearest to the points.

    Each change saves a part of the squared distance; the largest parts are kept, and ties go to the
    first feature.
    """
    change = inside - x
    saved = (change * (2 * (points - x) - change)).flatten(1)
    rank = saved.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return torch.where((rank < most[:, None]).reshape(x.shape), inside, x)
