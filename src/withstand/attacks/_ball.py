"""The tensor maths of regions: reachable boxes rounded inward, lengths, projections."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._errors import ThreatError
from ..threat import L0, L1, L2, Box, Frozen, Linf, Mask, Region
from ._problem import Problem

# Float32 scaling overshoots a radius by a few ulp; this much of the radius is given up instead.
_INWARD = 1 - 1e-6


def box(region: Region, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reachable lower and upper bounds (B, ...) of x, and the radius (B,) of the first ball.

    Bounds are exact in float64 and rounded inward to float32, so that clamping to them never leaves
    the region. Raises ThreatError for a region with two balls other than Linf.
    """
    origin = x.detach().cpu().numpy().astype(np.float64)
    lower, upper = np.full_like(origin, -np.inf), np.full_like(origin, np.inf)
    balls = [part for part in region if isinstance(part, Linf | L2 | L1 | L0)]
    if sum(not isinstance(ball, Linf) for ball in balls) > 1:
        raise ThreatError(f"the region is {region.describe()}; give at most one ball besides Linf")
    for part in region:
        if isinstance(part, Linf):
            eps = np.asarray(part.eps, np.float64).reshape(-1, *(1,) * (origin.ndim - 1))
            lower, upper = np.maximum(lower, origin - eps), np.minimum(upper, origin + eps)
        elif isinstance(part, Box):
            lower, upper = np.maximum(lower, part.lower), np.minimum(upper, part.upper)
        elif isinstance(part, Mask | Frozen):
            if isinstance(part, Mask):
                held = ~np.broadcast_to(part.free, origin.shape)
            else:
                held = np.zeros((len(origin), origin[0].size), bool)
                held[:, list(part.columns)] = True
                held = held.reshape(origin.shape)
            lower, upper = np.where(held, origin, lower), np.where(held, origin, upper)
    if ((origin < lower) | (origin > upper)).any():
        raise ThreatError(
            "inputs lie outside the model's domain; give raw inputs, and put normalisation into the"
            " model's preprocess, or set domain"
        )
    eps = np.broadcast_to(np.asarray(balls[0].eps, np.float64), (len(origin),))
    return (
        _inward(lower, np.inf).to(x.device),
        _inward(upper, -np.inf).to(x.device),
        torch.tensor(eps.astype(np.float32), device=x.device),
    )


def _inward(bound: np.ndarray, toward: float) -> Tensor:
    rounded = bound.astype(np.float32)
    outside = rounded < bound if toward > 0 else rounded > bound
    return torch.from_numpy(np.where(outside, np.nextafter(rounded, np.float32(toward)), rounded))


def length(delta: Tensor, norm: str) -> Tensor:
    """Length (B,) of each row of delta (B, ...) in the norm."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    if norm == "l2":
        return flat.square().sum(1).sqrt()
    return flat.abs().sum(1) if norm == "l1" else (flat != 0).sum(1).to(delta.dtype)


def project(problem: Problem, points: Tensor) -> Tensor:
    """The points (B, ...) brought into the region: nearest in Linf, scaled back in L2."""
    if problem.norm == "l2":
        delta = points - problem.x
        scale = problem.eps * _INWARD / length(delta, "l2").clamp_min(1e-12)
        points = problem.x + delta * problem.column(scale.clamp_max(1.0))
    # Clamping towards a box that holds x never lengthens delta.
    return torch.clamp(points, problem.lower, problem.upper)
