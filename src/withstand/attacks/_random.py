"""Random noise: the baseline that every attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._noise import normal, uniform
from ._problem import Problem


class _State(NamedTuple):
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Attack):
    """Random points on the rim of the region, in any of the four norms: no search at all.

    Linf draws corners, L2 and L1 lengths of eps, L0 other values for eps features. 1 forward a
    draw. A model that falls to it is not robust in any sense.
    """

    draws: int = 100
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("linf", "l2", "l1", "l0")

    def init(self, problem: Problem) -> _State:
        return _State(torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        points = self._points(problem, state.step)
        return Query(points, state.step < self.draws)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        return _State(state.step + 1)

    def _points(self, problem: Problem, step: Tensor) -> Tensor:
        x, elements = problem.x, problem.x[0].numel()
        drawn = uniform(problem, 1, step, elements).reshape(x.shape)
        if problem.norm == "linf":
            return project(problem, x + problem.column(problem.eps) * (drawn - 0.5).sign())
        if problem.norm == "l0":
            rank = uniform(problem, 2, step, elements).argsort(1).argsort(1)
            moved = (rank < problem.eps[:, None]).reshape(x.shape)
            return torch.where(moved, problem.lower + drawn * (problem.upper - problem.lower), x)
        if problem.norm == "l2":
            noise = normal(problem, 1, step, elements).reshape(x.shape)
        else:
            # Laplace numbers are uniform on the L1 sphere once they are brought to length 1.
            noise = (drawn - 0.5).sign() * -torch.log1p(-(2 * drawn - 1).abs())
        return project(
            problem, x + problem.column(problem.eps / length(noise, problem.norm)) * noise
        )
