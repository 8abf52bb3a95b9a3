"""APGD in L1: sparse steps whose number of features follows the best point found."""

from __future__ import annotations

from itertools import pairwise
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


def init(problem: Problem, noise: Tensor) -> State:
    """The state before the first query, which starts from noise (B, ...) cut to the widest ball.

    noise: in units of the box, or of the radius where there is none.
    """
    widest = problem.eps * _PHASES[0][0]
    span = problem.upper - problem.lower
    span = torch.where(span.isfinite(), span, problem.column(problem.eps))
    start = project(problem, problem.x + span * noise, widest)
    used = length(start - problem.x, "l0")
    return State(
        points=start,
        best=start,
        best_gradient=torch.zeros_like(start),
        best_loss=torch.full_like(problem.eps, -torch.inf),
        radius=widest,
        step_size=widest,
        share=used / problem.x[0].numel() / 1.5,
        used=used,
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

    begun, interval = _phase(state.step, steps)
    due = (state.step > begun) & ((state.step - begun) % interval == 0)
    used = length(best - problem.x, "l0")
    sparser = due & (used < 0.95 * state.used)
    share = torch.where(due, used / elements / 1.5, state.share)
    size = torch.where(due, state.step_size / 1.5, state.step_size)
    size = torch.where(sparser, state.radius, size).clamp(state.radius / 10, state.radius)
    points = torch.where(column(sparser), best, seen.points)
    gradient = torch.where(column(sparser), best_gradient, seen.gradient)

    rank = gradient.flatten(1).abs().argsort(dim=1, descending=True).argsort(dim=1)
    count = (share * elements).clamp_min(1).ceil()
    direction = torch.where((rank < count[:, None]).reshape(gradient.shape), gradient.sign(), 0.0)
    direction = direction / column(length(direction, "l1").clamp_min(1e-12))
    points = project(problem, points + column(size) * direction, state.radius)
    moved = State(
        points=points,
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        radius=state.radius,
        step_size=size,
        share=share,
        used=torch.where(due, used, state.used),
        step=state.step + 1,
    )
    begins = _phase(moved.step, steps)[0] == moved.step
    return _narrowed(problem, moved, begins, steps) if begins.any() else moved


def _narrowed(problem: Problem, state: State, begins: Tensor, steps: int) -> State:
    """The state where a narrower phase begins at the best point of the one before, all afresh."""
    column, elements = problem.column, problem.x[0].numel()
    factors = [problem.eps * factor for factor, _ in _PHASES]
    radius = state.radius
    for wide, narrow in pairwise(factors):
        radius = torch.where(begins & (state.radius == wide), narrow, radius)
    start = project(problem, state.best, radius)
    used = length(start - problem.x, "l0")
    return state._replace(
        points=torch.where(column(begins), start, state.points),
        best_loss=torch.where(begins, -torch.inf, state.best_loss),
        radius=radius,
        step_size=torch.where(begins, radius, state.step_size),
        share=torch.where(begins, used / elements / 1.5, state.share),
        used=torch.where(begins, used, state.used),
    )


def _phase(step: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The step (B,) at which the present phase began, and every how many it is looked at."""
    ends = [round(begins * steps) for _, begins in _PHASES] + [steps]
    begun, interval = torch.zeros_like(step), torch.ones_like(step)
    for first, last in pairwise(ends):
        inside = step >= first
        begun = begun.masked_fill(inside, first)
        interval = interval.masked_fill(inside, max(int(0.04 * (last - first)), 1))
    return begun, interval
