"""The nearest point of a hyperplane inside a box, in any norm."""

from __future__ import annotations

import torch
from torch import Tensor

from ._problem import Problem


def onto_plane(problem: Problem, points: Tensor, gradient: Tensor, drop: Tensor) -> Tensor:
    """The smallest change of points (B, ...) in the box by which a linear function falls by drop.

    gradient (B, ...) is the function's, drop (B,) at least 0; where the box allows no such fall the
    point with the deepest one is returned. Exact in Linf, L2 and L1 (Croce and Hein 2020b, eq. 4):
    the fall is concave and piecewise linear in one number, which is solved for after a sort.
    """
    slope = gradient.flatten(1).abs()
    room = torch.where(gradient > 0, points - problem.lower, problem.upper - points).flatten(1)
    # Only features with a slope can help, and 0 * inf is no number.
    room = torch.where(slope > 0, room.clamp_min(0), 0.0)
    if problem.norm == "l1":
        change = _greedy(slope, room, drop)
    elif problem.norm == "linf":
        change = _level(room, slope, drop)[:, None].minimum(room)
    else:
        kinks = room / slope.clamp_min(1e-30)
        change = (_level(kinks, slope.square(), drop)[:, None] * slope).minimum(room)
    moved = points - gradient.sign() * change.reshape(points.shape)
    return torch.clamp(moved, problem.lower, problem.upper)


def _level(kinks: Tensor, slopes: Tensor, drop: Tensor) -> Tensor:
    """The least t (B,) with sum(slopes * min(t, kinks)) = drop; the last kink if there is none."""
    kinks, order = kinks.sort(dim=1)
    slopes = slopes.gather(1, order)
    used = torch.where(kinks.isfinite(), slopes * kinks, 0.0).cumsum(1)
    left = slopes.flip(1).cumsum(1).flip(1)
    # The fall at each kink: what is used up before it, and what still rises up to it.
    before = torch.nn.functional.pad(used[:, :-1], (1, 0))
    at = torch.where(kinks.isfinite(), before + left * kinks, torch.inf)
    first = (at < drop[:, None]).sum(1, keepdim=True).clamp_max(kinks.shape[1] - 1)
    rest = (drop[:, None] - before.gather(1, first)).clamp_min(0)
    level = rest / left.gather(1, first).clamp_min(1e-30)
    return level.minimum(kinks.gather(1, first))[:, 0]


def _greedy(slopes: Tensor, room: Tensor, drop: Tensor) -> Tensor:
    """The features with the steepest slopes first, each up to its room."""
    order = slopes.argsort(dim=1, descending=True, stable=True)
    sorted_slopes, sorted_room = slopes.gather(1, order), room.gather(1, order)
    fall = sorted_slopes * sorted_room
    before = torch.nn.functional.pad(fall.cumsum(1)[:, :-1], (1, 0))
    wanted = (drop[:, None] - before).clamp_min(0) / sorted_slopes.clamp_min(1e-30)
    change = torch.empty_like(room)
    return change.scatter_(1, order, wanted.minimum(sorted_room))
