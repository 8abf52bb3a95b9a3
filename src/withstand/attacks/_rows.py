"""Inputs that an attacker begins with: those of others, or examples found before."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import DataError
from ..threat import Targeted
from ._problem import Problem

Array = NDArray[Any]
# Of the linear fit to others: its penalty, and how many spreads from the mean a value counts.
_RIDGE, _FARTHEST = 0.1, 5.0


class Rows:
    """What an attack begins with; it shows itself as a count and a digest, however many rows."""

    def __init__(self, values: Array, names: Array) -> None:
        if np.ndim(values) < 2 or len(values) != len(names):
            raise DataError(
                f"{np.shape(values)} rows come with {len(names)} labels or keys; give one for each"
            )
        self.values = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
        self.names = np.ascontiguousarray(names, np.int64)
        content = self.values.tobytes() + self.names.tobytes()
        self.digest = blake2b(content, digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows, {self.digest})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def begin(self, problem: Problem, count: int) -> tuple[Tensor, Tensor]:
        """Up to `count` rows (B, count, F) to begin with, and which there are (B, count)."""
        raise NotImplementedError


class Donors(Rows):
    """Inputs (n, ...) of others with their labels (n,), as the model or the data tell them.

    A sample begins with those of another class, or of the target's, of which it can copy most: the
    nearest by what stays different after all that can be copied, in units of each feature's spread.
    """

    def __init__(self, values: Array, labels: Array) -> None:
        super().__init__(values, labels)
        middle = np.median(self.values, 0) if len(self) else np.zeros(self.values.shape[1])
        spread = np.abs(self.values - middle).mean(0, dtype=np.float64)
        self.weight = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 1.0)

    def begin(self, problem: Problem, count: int) -> tuple[Tensor, Tensor]:
        x, lower, upper = (
            one.flatten(1).cpu().numpy() for one in (problem.x, problem.lower, problem.upper)
        )
        found = np.repeat(x[:, None], count, 1)
        there = np.zeros(found.shape[:2], bool)
        sides = zip(x, lower, upper, self._labels(problem), problem.lane.tolist(), strict=True)
        for row, (own, low, high, label, lane) in enumerate(sides):
            some = self.values[self._other(problem, label)]
            chosen = self._nearest(some, own, low, high)[lane * count : (lane + 1) * count]
            found[row, : len(chosen)], there[row, : len(chosen)] = some[chosen], True
        device = problem.x.device
        return torch.from_numpy(found).to(device), torch.from_numpy(there).to(device)

    def toward(self, problem: Problem) -> Tensor:
        """The end (B, F) of each range to which a linear fit of the wanted classes points."""
        lower, upper = problem.lower.flatten(1), problem.upper.flatten(1)
        slopes: dict[Any, Array] = {}
        for label in self._labels(problem):
            if label not in slopes:
                slopes[label] = self._slope(self._other(problem, label))
        ways = np.stack([slopes[label] for label in self._labels(problem)])
        way = torch.from_numpy(ways).to(lower)
        x = problem.x.flatten(1)
        end = torch.where(way > 0, upper, torch.where(way < 0, lower, x))
        return torch.where(end.isfinite(), end, x)

    def _slope(self, other: Array) -> Array:
        """The slopes (F,) of a ridge regression on which rows (n,) are of the wanted classes."""
        if not len(self):
            return np.zeros(self.values.shape[1])
        scaled = (self.values - self.values.mean(0, dtype=np.float64)) * self.weight
        scaled = np.clip(scaled, -_FARTHEST, _FARTHEST)
        inner = scaled.T @ scaled + _RIDGE * len(self) * np.eye(scaled.shape[1])
        return np.asarray(np.linalg.solve(inner, scaled.T @ (other - other.mean())))

    def _other(self, problem: Problem, label: Any) -> Array:
        """Which rows (n,) are of a class that a sample of this label wants to pass for."""
        goal = problem.goal
        wanted = self.names == goal.target if isinstance(goal, Targeted) else self.names != label
        return np.asarray(wanted)

    def _nearest(self, some: Array, own: Array, low: Array, high: Array) -> Array:
        left = np.abs(some - np.clip(some, low, high)) * self.weight
        moved = np.abs(some - own) * self.weight
        return np.argsort(left.sum(1) + 0.1 * moved.mean(1), kind="stable")

    def _labels(self, problem: Problem) -> list[Any]:
        # A goal without classes has no label that a row could share.
        return problem.y.tolist() if problem.y.ndim == 1 else [None] * len(problem)


class Examples(Rows):
    """Examples (n, F) found before, each for the sample with its key (n,)."""

    def begin(self, problem: Problem, count: int) -> tuple[Tensor, Tensor]:
        place = {key: number for number, key in enumerate(self.names.tolist())}
        known = [place.get(key, -1) for key in problem.key.tolist()]
        device = problem.x.device
        number = torch.tensor(known, dtype=torch.long, device=device)
        values = torch.from_numpy(self.values).to(device)[number.clamp_min(0)]
        there = torch.zeros(len(known), count, dtype=torch.bool, device=device)
        there[:, 0] = number >= 0
        return values[:, None].expand(-1, count, -1).clone(), there
