"""What a network is made of: operations with values, intervals and transposes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
Pulled = tuple[tuple[Tensor, ...], Tensor | float]


class Interval(NamedTuple):
    """Lower and upper bounds (B, ...) of every number."""

    lower: Tensor
    upper: Tensor

    @property
    def largest(self) -> Tensor:
        """The largest magnitude (B, ...)."""
        return torch.maximum(self.lower.abs(), self.upper.abs())


class Operation(ABC):
    """One step of a network from tensors (B, ...) to a tensor (B, ...)."""

    @abstractmethod
    def __call__(self, *x: Tensor) -> Tensor:
        """The values."""

    @abstractmethod
    def interval(self, *boxes: Interval) -> Interval:
        """Bounds of the values while the inputs stay in their boxes (Gowal et al. 2018)."""

    @abstractmethod
    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        """How far rounding takes the values.

        boxes: bounds of the exact inputs; errors: how far rounding has taken them already.
        """


class Affine(Operation):
    """A linear map plus a constant."""

    @abstractmethod
    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        """Linear functions a (R, ...) of the values, as ones of the inputs of these shapes."""

    def constant(self, a: Tensor) -> Tensor | float:
        """What the constant adds to the linear functions, (R,)."""
        return 0.0

    def single(self, places: Tensor, shape: Shape, shapes: tuple[Shape, ...]) -> Pulled:
        """What `pull` and `constant` give for single values, at flat places (R,) of the shape."""
        a = torch.zeros(len(places), prod(shape), dtype=torch.float64, device=places.device)
        a.scatter_(1, places[:, None], 1)
        a = a.reshape(-1, *shape)
        return self.pull(a, shapes), self.constant(a)


class Unit(NamedTuple):
    """The unit roundoff of a model's values, and of the factors of its matrices' products."""

    values: float
    factors: float = 0.0

    def products(self, terms: int) -> float:
        """The relative error of a sum of products of so many terms of a matrix."""
        sums = growth(terms, self.values)
        return sums + (2 * self.factors + self.factors**2) * (1 + sums)


def growth(terms: int, unit: float) -> float:
    """The relative error of a sum of products of so many terms, in any order (Higham 2002, 3.1)."""
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else inf


def against(a: Tensor, constant: Tensor) -> Tensor:
    """Linear functions a (R, ...) of a constant that broadcasts to one of them, (R,)."""
    return (a * constant.to(a.dtype)).flatten(1).sum(1)
