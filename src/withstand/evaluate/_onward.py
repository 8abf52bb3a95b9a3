"""A search by scores from points that came near a mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..attacks import Problem, Rows, Square, project

_SHARE = 7


@dataclass(frozen=True, kw_only=True)
class Onward(Square):
    """Square from given points, in small windows; where there is no point, from stripes.

    Rounding leaves steps and pockets that a stand-in's gradient does not see, and a search does.
    starts: the points by the samples' keys. Sides go through 1, 2, ... up to a seventh of the
    picture's: shrinking with the queries, as from stripes, found less. 1 forward a step.
    """

    starts: Rows

    def init(self, problem: Problem) -> Any:
        state = super().init(problem)
        begun, there = self.starts.begin(problem, 1)
        points = project(problem, begun[:, 0].reshape(problem.x.shape).to(problem.x))
        return state._replace(best=torch.where(problem.column(there[:, 0]), points, state.best))

    def _area(self, state: Any) -> Tensor:
        most = (state.room[:, 2:].amin(1) // _SHARE).clamp_min(1)
        area: Tensor = (1 + state.step % most).float().square()
        return area
