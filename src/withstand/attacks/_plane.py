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
    """The least t (B,) with sum(slopes * min(t, kinks)) = drop; the last kink if there is none.

    Newton's steps from below: the sum is concave, so that none goes too far, and they end when no
    more kinks are passed. A handful of passes over the features costs a fraction of a sort.
    """
    finite = kinks.isfinite()
    used = torch.where(finite, slopes * kinks, 0.0)
    last = torch.where(finite, kinks, torch.inf).amax(1)
    level, passed = torch.zeros_like(drop), kinks < 0
    for _ in range(kinks.shape[1] + 1):
        left = torch.where(passed, 0.0, slopes).sum(1)
        rest = (drop - torch.where(passed, used, 0.0).sum(1)).clamp_min(0)
        level = torch.maximum(level, rest / left.clamp_min(1e-30)).minimum(last)
        before, passed = passed, kinks <= level[:, None]
        if torch.equal(before, passed):
            break
    return level


def _greedy(slopes: Tensor, room: Tensor, drop: Tensor) -> Tensor:
    """The features with the steepest slopes first, each up to its room."""
    order = slopes.argsort(dim=1, descending=True, stable=True)
    sorted_slopes, sorted_room = slopes.gather(1, order), room.gather(1, order)
    fall = sorted_slopes * sorted_room
    before = torch.nn.functional.pad(fall.cumsum(1)[:, :-1], (1, 0))
    wanted = (drop[:, None] - before).clamp_min(0) / sorted_slopes.clamp_min(1e-30)
    change = torch.empty_like(room)
    return change.scatter_(1, order, wanted.minimum(sorted_room))
