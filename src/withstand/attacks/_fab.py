"""FAB: between the linear boundary and the original point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Query, Seen
from ._plane import onto_plane
from ._problem import Problem
from ._targets import TowardsTargets, lead


class _State(NamedTuple):
    points: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class FAB(TowardsTargets):
    """The fast adaptive boundary attack (Croce and Hein 2020b, algorithm 1), Linf, L2 and L1.

    The linear boundary is approached from the iterate and from x at once; from an adversarial point
    it goes back by beta towards x. It follows the goal's margin, or as FAB-T that to each of
    `targets` classes in MALT's order. 1 forward + 1 backward a step: after a success the boundary
    seen there serves the point before it.
    """

    steps: int = 50
    bias: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2", "l1")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        return _State(problem.x, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        return Query(state.points, state.step < self.steps, lead(problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        column, x = problem.column, problem.x
        back = x + self.beta * (seen.points - x)
        points = torch.where(column(seen.hit), back, seen.points)
        near, far = self._moves(problem, points, seen), self._moves(problem, x, seen)
        own, origin = (length(move, problem.norm) for move in (near, far))
        share = (own / (own + origin).clamp_min(1e-12)).clamp_max(self.bias)
        ahead = points + self.eta * near
        mixed = torch.lerp(ahead, x + self.eta * far, column(share))
        return _State(torch.clamp(mixed, problem.lower, problem.upper), state.step + 1)

    def _moves(self, problem: Problem, points: Tensor, seen: Seen) -> Tensor:
        """The shortest change (B, ...) from points onto the linear boundary seen."""
        assert seen.gradient is not None
        assert seen.loss is not None
        away = (seen.gradient * (points - seen.points)).flatten(1).sum(1)
        lead = seen.loss + away
        # Beyond the boundary the way back to it goes up the slope.
        gradient = torch.where(problem.column(lead < 0), -seen.gradient, seen.gradient)
        return onto_plane(problem, points, gradient, lead.abs()) - points
