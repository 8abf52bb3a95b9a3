"""APGD in L1: sparse steps whose number of features follows the best point found."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._ball import length, project
from ._contract import Seen
from ._problem import Problem

# Radii, in eps, and the shares of the steps after which they begin (section 3.3).
_PHASES = ((3.0, 0.0), (2.0, 0.3), (1.0, 0.6))


class State(NamedTuple):
    """One row each: the iterate, the best point of its phase, and the schedule of its steps."""

    points: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    radius: Tensor
    step_size: Tensor
    share: Tensor
    used: Tensor
    step: Tensor


def init(problem: Problem, start: Tensor) -> State:
    """The state before the first query, from a random start (B, ...)."""
    return State(
        points=start,
        best=start,
        best_gradient=torch.zeros_like(start),
        best_loss=torch.full_like(problem.eps, -torch.inf),
        radius=problem.eps * _PHASES[0][0],
        step_size=problem.eps * _PHASES[0][0],
        share=torch.full_like(problem.eps, 0.2),
        used=torch.full_like(problem.eps, problem.x[0].numel()),
        step=torch.zeros_like(problem.lane),
    )


def step(problem: Problem, state: State, seen: Seen, steps: int) -> State:
    """One step of L1-APGD (Croce and Hein 2021, algorithm 1)."""
    assert seen.gradient is not None
    assert seen.loss is not None
    column, elements = problem.column, problem.x[0].numel()
    better = seen.loss > state.best_loss
    best = torch.where(column(better), seen.points, state.best)
    best_gradient = torch.where(column(better), seen.gradient, state.best_gradient)
    best_loss = torch.maximum(seen.loss, state.best_loss)

    due = ((state.step + 1) % max(int(0.04 * steps), 1)) == 0
    used = length(best - problem.x, "l0")
    sparser = due & (used < 0.95 * state.used)
    share = torch.where(due, used / elements / 1.5, state.share)
    size = torch.where(due, state.step_size / 1.5, state.step_size)
    size = torch.where(sparser, state.radius, size).clamp(state.radius / 10, state.radius)
    points = torch.where(column(sparser), best, seen.points)
    gradient = torch.where(column(sparser), best_gradient, seen.gradient)

    radius = state.radius
    for factor, begins in _PHASES[1:]:
        # A narrower phase begins at the best point of the one before, with all schedules afresh.
        begin = state.step + 1 == round(begins * steps)
        radius = torch.where(begin, factor * problem.eps, radius)
        size = torch.where(begin, radius, size)
        best_loss = torch.where(begin, -torch.inf, best_loss)
        points = torch.where(column(begin), best, points)
        gradient = torch.where(column(begin), best_gradient, gradient)

    rank = gradient.flatten(1).abs().argsort(dim=1, descending=True).argsort(dim=1)
    count = (share * elements).clamp_min(1).floor()
    direction = torch.where((rank < count[:, None]).reshape(gradient.shape), gradient.sign(), 0.0)
    direction = direction / column(length(direction, "l1").clamp_min(1e-12))
    return State(
        points=project(problem, points + column(size) * direction, radius),
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        radius=radius,
        step_size=size,
        share=share,
        used=torch.where(due, used, state.used),
        step=state.step + 1,
    )
