"""APGD: projected gradient ascent that chooses its own step size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from . import _apgd_l1
from ._ball import project
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._noise import normal
from ._pgd import random_start, steepest
from ._problem import Problem


class _State(NamedTuple):
    points: Tensor
    previous: Tensor
    best: Tensor
    best_direction: Tensor
    best_loss: Tensor
    last_loss: Tensor
    step_size: Tensor
    rises: Tensor
    halved: Tensor
    checked_loss: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD (Croce and Hein 2020, algorithm 1); the radius is its only parameter.

    loss: ce, dlr, margin or pma. In Linf and L2, after halving, it restarts from the best point
    without momentum; L1 follows Croce and Hein 2021. 1 forward + 1 backward a step.
    """

    steps: int = 100
    loss: str = "pma"
    restarts: int = 1
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2", "l1")

    @property
    def lanes(self) -> int:
        """Restarts."""
        return self.restarts

    def init(self, problem: Problem) -> _State | _apgd_l1.State:
        if problem.norm == "l1":
            noise = normal(problem, 1, 0, problem.x[0].numel()).reshape(problem.x.shape)
            return _apgd_l1.init(problem, noise)
        start = random_start(problem, 1)
        lowest = torch.full_like(problem.eps, -torch.inf)
        no = torch.zeros_like(problem.lane, dtype=torch.bool)
        return _State(
            points=start,
            previous=start,
            best=start,
            best_direction=torch.zeros_like(start),
            best_loss=lowest,
            last_loss=lowest,
            step_size=2 * problem.eps,
            rises=torch.zeros_like(problem.lane),
            halved=no,
            checked_loss=lowest,
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State | _apgd_l1.State) -> Query:
        # The last iterate is judged too, so that there is one query more than there are steps.
        return Query(state.points, state.step <= self.steps, partial(loss, self.loss, problem))

    def step(
        self, problem: Problem, state: _State | _apgd_l1.State, seen: Seen
    ) -> _State | _apgd_l1.State:
        if isinstance(state, _apgd_l1.State):
            return _apgd_l1.step(problem, state, seen, self.steps)
        assert seen.gradient is not None
        assert seen.loss is not None
        column = problem.column
        better = seen.loss > state.best_loss
        # Rows chosen by a weight of 0 or 1: a third of the time that `where` takes on a processor.
        weight = column(better.to(seen.points.dtype))
        direction = steepest(problem, seen.gradient)
        best = torch.lerp(state.best, state.points, weight)
        best_direction = torch.lerp(state.best_direction, direction, weight)
        best_loss = torch.maximum(seen.loss, state.best_loss)
        rises = state.rises + (seen.loss > state.last_loss)

        points, previous = state.points, state.previous
        step_size, halved, last_loss = state.step_size, state.halved, seen.loss
        checked_loss = state.checked_loss
        # Few steps are checkpoints, and what is done at one costs as much as the rest of the step.
        windows, at = _windows(self.steps), state.step.tolist()
        if not windows.keys().isdisjoint(at):
            window = torch.tensor([windows.get(step, 0) for step in at], device=points.device)
            due = window > 0
            stalled = ~halved & (best_loss <= checked_loss)
            halve = due & ((rises <= 0.75 * window) | stalled)
            weight = column(halve.to(points.dtype))
            points = torch.lerp(points, best, weight)
            direction = torch.lerp(direction, best_direction, weight)
            previous = torch.lerp(previous, best, weight)
            step_size = torch.where(halve, step_size / 2, step_size)
            last_loss = torch.where(halve, best_loss, last_loss)
            rises, halved = rises.masked_fill(due, 0), torch.where(due, halve, halved)
            checked_loss = torch.where(due, best_loss, checked_loss)

        torch.addcmul(points, column(step_size), direction, out=direction)
        ahead = _projected(problem, direction)
        # points + 0.75 (ahead - points) + 0.25 (points - previous)
        glide = torch.lerp(previous, points, 2.0).lerp_(ahead, 0.75)
        glide = _projected(problem, glide)
        if 0 in at:
            # The first step has no momentum.
            glide = torch.where(column(state.step > 0), glide, ahead)
        return _State(
            points=glide,
            previous=points,
            best=best,
            best_direction=best_direction,
            best_loss=best_loss,
            last_loss=last_loss,
            step_size=step_size,
            rises=rises,
            halved=halved,
            checked_loss=checked_loss,
            step=state.step + 1,
        )


def _projected(problem: Problem, points: Tensor) -> Tensor:
    """The points (B, ...), which are written to, brought into the box and the ball.

    In L2 they are cut to the box first, and not to the nearest point of both: in trials on robust
    networks that left 2 in 100 images fewer standing.
    """
    if problem.norm == "l2":
        points = torch.clamp(points, problem.lower, problem.upper, out=points)
    return project(problem, points, owned=True)


@lru_cache
def _windows(steps: int) -> dict[int, int]:
    """Steps since the last checkpoint, by the step at which one is due (eq. 3)."""
    windows = {}
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        # The sum of decimal shares lies a rounding error above the paper's own figures.
        first, second = (ceil(share * steps - 1e-9) for share in shares[-2:])
        if second > first:
            windows[second] = second - first
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return windows
