"""APGD: projected gradient ascent that chooses its own step size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import project
from ._contract import Query, Seen
from ._losses import loss
from ._pgd import random_start, steepest
from ._problem import Problem


class _State(NamedTuple):
    points: Tensor
    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    step_size: Tensor
    rises: Tensor
    halved: Tensor
    checked_loss: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Auto-PGD (Croce and Hein 2020, algorithm 1), Linf or L2; the radius is its only parameter.

    loss: ce, dlr, margin or pma. After halving it restarts from the best point without momentum.
    1 forward + 1 backward a step.
    """

    steps: int = 100
    loss: str = "pma"
    restarts: int = 1
    needs: Access = "gradients"

    def init(self, problem: Problem) -> _State:
        start = random_start(problem, 1)
        lowest = torch.full_like(problem.eps, -torch.inf)
        no = torch.zeros_like(problem.lane, dtype=torch.bool)
        return _State(
            points=start,
            previous=start,
            best=start,
            best_gradient=torch.zeros_like(start),
            best_loss=lowest,
            last_loss=lowest,
            step_size=2 * problem.eps,
            rises=torch.zeros_like(problem.lane),
            halved=no,
            checked_loss=lowest,
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        # The last iterate is judged too, so that there is one query more than there are steps.
        return Query(state.points, state.step <= self.steps, partial(loss, self.loss, problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        column = problem.column
        better = seen.loss > state.best_loss
        best = torch.where(column(better), state.points, state.best)
        best_gradient = torch.where(column(better), seen.gradient, state.best_gradient)
        best_loss = torch.maximum(seen.loss, state.best_loss)
        rises = state.rises + (seen.loss > state.last_loss)

        window = self._windows(state.step)
        due = window > 0
        stalled = ~state.halved & (best_loss <= state.checked_loss)
        halve = due & ((rises <= 0.75 * window) | stalled)
        step_size = torch.where(halve, state.step_size / 2, state.step_size)
        points = torch.where(column(halve), best, state.points)
        gradient = torch.where(column(halve), best_gradient, seen.gradient)
        previous = torch.where(column(halve), best, state.previous)

        ahead = project(problem, points + column(step_size) * steepest(problem, gradient))
        share = torch.where(state.step == 0, 1.0, 0.75)
        glide = points + column(share) * (ahead - points)
        glide = glide + column(1 - share) * (points - previous)
        return _State(
            points=project(problem, glide),
            previous=points,
            best=best,
            best_gradient=best_gradient,
            best_loss=best_loss,
            last_loss=torch.where(halve, best_loss, seen.loss),
            step_size=step_size,
            rises=torch.where(due, 0, rises),
            halved=torch.where(due, halve, state.halved),
            checked_loss=torch.where(due, best_loss, state.checked_loss),
            step=state.step + 1,
        )

    def _windows(self, step: Tensor) -> Tensor:
        """Steps since the last checkpoint (B,), 0 where none is due (eq. 3)."""
        length = [0] * (self.steps + 2)
        shares = [0.0, 0.22]
        while shares[-1] < 1:
            # The sum of decimal shares lies a rounding error above the paper's own figures.
            first, second = (ceil(share * self.steps - 1e-9) for share in shares[-2:])
            length[second] = second - first
            shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
        return torch.tensor(length, device=step.device)[step.clamp_max(self.steps + 1)]
