"""What attacks that estimate a gradient from differences of scores share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..threat import Access
from ._contract import Attack, Query, Seen
from ._problem import Problem


def width(problem: Problem) -> Tensor:
    """How far each feature can typically move (B, ...); 0 where it is frozen.

    In Linf half of its box, in L2 its part of the radius, if all of them moved alike.
    """
    free = problem.upper > problem.lower
    if problem.norm == "linf":
        return torch.where(free, (problem.upper - problem.lower) / 2, 0.0)
    count = free.flatten(1).sum(1).clamp_min(1).to(problem.eps.dtype)
    return torch.where(free, problem.column(problem.eps / count.sqrt()), 0.0)


@dataclass(frozen=True, kw_only=True)
class Differences(Attack):
    """A point, and pairs of opposite points around it, asked in every step.

    queries: of a sample; pairs: in a step; distance: of a pair's points from the middle, in shares
    of what a feature can move. The state's fields include `point` and `step`.
    """

    queries: int = 5000
    pairs: int = 10
    distance: float = 0.1
    needs: ClassVar[Access] = "scores"
    norms: ClassVar = ("linf", "l2")

    @abstractmethod
    def directions(self, problem: Problem, number: Tensor) -> Tensor:
        """Random directions (B, M, features) of typical size 1, for numbers (B, M)."""

    @property
    def asked(self) -> int:
        """Points in a step."""
        return 1 + 2 * self.pairs

    def query(self, problem: Problem, state: Any) -> Query:
        pair = torch.arange(self.pairs, device=problem.x.device)
        drawn = self.directions(problem, state.step[:, None] * self.pairs + pair)
        shift = drawn.reshape(*drawn.shape[:2], *problem.x.shape[1:])
        shift = shift * (self.distance * width(problem))[:, None]
        middle = state.point[:, None]
        points = torch.cat((middle, middle + shift, middle - shift), 1)
        # A model has no answer outside its domain. At a face one point of a pair stays where it is
        # in that feature, and the difference still has the right sign.
        points = torch.clamp(points, problem.lower[:, None], problem.upper[:, None])
        number = torch.arange(self.asked, device=problem.x.device)
        return Query(points, state.step[:, None] * self.asked + number < self.queries)

    def slope(self, problem: Problem, seen: Seen) -> Tensor:
        """The gradient of the margin (B, ...) by features of width 1, up to a positive factor."""
        assert seen.scores is not None
        n = self.pairs
        label = problem.y.repeat_interleave(2 * n, 0)
        margin = problem.goal.margin(seen.scores[:, 1:].flatten(0, 1), label).reshape(-1, 2 * n)
        # A model's NaN or infinity says nothing about a direction.
        rise = torch.nan_to_num(margin[:, :n] - margin[:, n:], 0.0, 0.0, 0.0)
        apart = seen.points[:, 1 : 1 + n] - seen.points[:, 1 + n :]
        summed = (apart * rise.reshape(*rise.shape, *(1,) * (problem.x.ndim - 1))).sum(1)
        return summed / width(problem).clamp_min(1e-12)
