"""DeepFool and SuperDeepFool: steps to where a linear margin would end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Query, Seen
from ._plane import onto_plane
from ._problem import Problem
from ._targets import TowardsTargets, lead


class _State(NamedTuple):
    points: Tensor
    first: Tensor  # the margin of x
    ended: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class DeepFool(TowardsTargets):
    """DeepFool (Moosavi-Dezfooli et al. 2016, algorithm 1), Linf, L2 and L1.

    Each step goes to where the lead over the target, or the goal's margin, would be halved inside
    the box if it were linear, and at least by `overshoot` of the first one; it ends at the first
    success, which is near and not the nearest. Whole steps, as in the paper, end far beyond
    boundaries that are bent, and all classes at each step cost more than the three nearest by
    themselves. 1 forward + 1 backward a step, about ten for each target.
    """

    targets: int = 3
    steps: int = 50
    share: float = 0.5
    overshoot: float = 0.02
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        no = torch.zeros_like(problem.lane, dtype=torch.bool)
        return _State(problem.x, torch.zeros_like(problem.eps), no, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        return Query(state.points, ~state.ended & (state.step < self.steps), lead(problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        first = torch.where(state.step == 0, seen.loss, state.first)
        drop = torch.maximum(self.share * seen.loss, self.overshoot * first)
        points = onto_plane(problem, seen.points, seen.gradient, drop)
        return _State(points, first, seen.hit, state.step + 1)
