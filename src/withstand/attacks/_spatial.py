"""Spatial: the picture turned and shifted, nothing painted over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._errors import DataError, ThreatError
from ..models import motions, moved
from ..threat import Access
from ._contract import Attack, Query, Seen
from ._problem import Problem


class _State(NamedTuple):
    asked: Tensor


@dataclass(frozen=True, kw_only=True)
class Spatial(Attack):
    """Worst of a grid of rotations and translations (Engstrom et al. 2019, sec. 3).

    rotation: degrees either way, in `angles` steps; translation: share of each side either way, in
    `shifts` steps down and across; fill: what comes in from outside, the border's value or 0. The
    grid is searched from the mildest motion to the strongest, each side's limit counting alike.
    angles * shifts**2 forwards, `width` a query, less 1 where the grid has the picture itself.

    A turned picture is far away in every norm. The region to give is the whole domain, as
    Linf(width of the domain); the engine counts what lies inside a narrower one only. Raises
    DataError for what is no picture (B, C, H, W).
    """

    rotation: float = 30.0
    translation: float = 0.1
    angles: int = 31
    shifts: int = 5
    fill: Literal["border", "zeros"] = "border"
    width: int = 8
    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("linf", "l2", "l1", "l0")

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180 or not 0 <= self.translation < 1:
            raise ThreatError(
                f"rotation is {self.rotation} and translation {self.translation}; give 0 to 180 "
                "degrees and a share from 0 to below 1"
            )
        if min(self.angles, self.shifts, self.width) < 1:
            raise ThreatError(
                f"angles, shifts and width are {self.angles}, {self.shifts} and {self.width}; "
                "give at least 1 each"
            )
        super().__post_init__()

    def init(self, problem: Problem) -> _State:
        if problem.x.ndim != 4:
            shape = tuple(problem.x.shape[1:])
            raise DataError(f"Spatial turns pictures (C, H, W); the inputs have shape {shape}")
        return _State(torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        x = problem.x
        grid = _grid(self, *x.shape[2:]).to(x)
        place = state.asked[:, None] + torch.arange(self.width, device=x.device)
        live = place < len(grid)
        motion = grid[place.clamp_max(len(grid) - 1)]
        rows = x[:, None].expand(-1, self.width, *x.shape[1:]).flatten(0, 1)
        points = moved(rows, motion.flatten(0, 1), self.fill).reshape(-1, self.width, *x.shape[1:])
        # Means of values lie between them, but for the last bit.
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        if self.fill == "zeros":
            low, high = low.clamp_max(0), high.clamp_min(0)
        return Query(points.clamp(low[:, None], high[:, None]), live)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        return _State(state.asked + self.width)

    def motion(self, place: int) -> tuple[float, float, float]:
        """Degrees anticlockwise, shares of the height down and of the width to the right.

        The clean input comes first, so that the place of a success is ledger.first_success - 2.
        """
        angle, down, right = _places(self)[place]
        return float(angle), float(down), float(right)


@lru_cache
def _places(attack: Spatial) -> np.ndarray:
    """Angle, share down and share right (G, 3), the mildest first and none that does nothing."""
    turns, shifts = _either_way(attack.angles), _either_way(attack.shifts)
    grid = np.stack(np.meshgrid(turns, shifts, shifts, indexing="ij"), -1).reshape(-1, 3)
    # Rounded, since equals have to stay in order whatever the last bit of a square is.
    size = np.square(grid).sum(1).round(9)
    grid = grid[np.argsort(size, kind="stable")]
    limits = (attack.rotation, attack.translation, attack.translation)
    grid *= limits
    return np.asarray(grid[(grid != 0).any(1)])


def _either_way(steps: int) -> np.ndarray:
    return np.linspace(-1, 1, steps) if steps > 1 else np.zeros(1)


@lru_cache
def _grid(attack: Spatial, height: int, width: int) -> Tensor:
    places = _places(attack)
    if not len(places):
        raise ThreatError("the grid holds nothing but the picture itself; give more angles")
    angle, down, right = places.T
    return motions(height, width, angle=angle, right=right * width, down=down * height)
