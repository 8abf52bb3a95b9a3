"""Affine maps without weights: scales, sums, averages, and the same numbers in another shape."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._operations import Affine, Interval, Shape, Unit, against, growth


class Scaling(Affine):
    """Each number times a factor plus a shift, of shapes that broadcast to one input's."""

    @abstractmethod
    def constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Factor and shift, in the type of a tensor."""

    def __call__(self, *x: Tensor) -> Tensor:
        factor, shift = self.constants(x[0])
        return x[0] * factor + shift

    def interval(self, *boxes: Interval) -> Interval:
        ends = self(boxes[0].lower), self(boxes[0].upper)
        return Interval(torch.minimum(*ends), torch.maximum(*ends))

    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (a * self.constants(a)[0],)

    def constant(self, a: Tensor) -> Tensor | float:
        return against(a, self.constants(a)[1])

    def sizes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes of the factor, and of all that the shift is made of."""
        factor, shift = self.constants(like)
        return factor.abs(), shift.abs()

    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        factor, shift = self.sizes(errors[0])
        # The network may do this, and make its constants, in up to eight roundings.
        fresh = (boxes[0].largest + errors[0]) * factor + shift
        return errors[0] * factor + growth(8, unit.values) * fresh


@dataclass(frozen=True, eq=False)
class Scale(Scaling):
    """Constants added and multiplied: normalisation, differences, averages."""

    factor: Tensor
    shift: Tensor

    def constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor.to(like.dtype), self.shift.to(like.dtype)


@dataclass(frozen=True, eq=False)
class Slopes(Scaling):
    """The slopes of a PReLU below 0, or what they lack of 1: a weight that stays the module's own.

    axes: how many follow the one that the weight is of.
    """

    weight: Tensor
    axes: int
    lacking: bool = False

    def constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        factor = self.weight.to(like.dtype).reshape(-1, *(1,) * self.axes)
        return 1 - factor if self.lacking else factor, torch.zeros_like(factor)


@dataclass(frozen=True, eq=False)
class BatchNorm(Scaling):
    """Batch normalisation by the running statistics, which stay the module's own."""

    module: nn.BatchNorm1d | nn.BatchNorm2d
    axes: int

    def constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.module.running_mean, self.module.running_var
        assert mean is not None
        assert variance is not None
        factor = (variance + self.module.eps).rsqrt()
        if self.module.affine:
            factor = factor * self.module.weight
        shift = -mean * factor
        if self.module.affine:
            shift = shift + self.module.bias
        shape = (-1, *(1,) * self.axes)
        return factor.reshape(shape), shift.reshape(shape)

    def sizes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        factor, shift = (constant.abs() for constant in self.constants(like))
        assert self.module.running_mean is not None
        mean = self.module.running_mean.abs().reshape(factor.shape) * factor
        # shift = bias - mean * factor, of which both may be larger.
        return factor, shift + 2 * mean


@dataclass(frozen=True, eq=False)
class Nonnegative(Affine):
    """A linear map without constant whose coefficients are at least 0: pooling, sums, moves.

    terms: how many numbers one value is made of at most, 0 where none is changed.
    """

    function: Callable[..., Tensor]
    terms: int = 0

    def __call__(self, *x: Tensor) -> Tensor:
        return self.function(*x)

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(self(*(b.lower for b in boxes)), self(*(b.upper for b in boxes)))

    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            x = [a.new_zeros(len(a), *shape).requires_grad_() for shape in shapes]
            return torch.autograd.grad(self(*x), x, a, create_graph=a.requires_grad)

    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        if not self.terms:
            return self(*errors)
        reached = self(*(b.largest + e for b, e in zip(boxes, errors, strict=True)))
        return self(*errors) + growth(self.terms + 1, unit.values) * reached


class Reshape(Nonnegative):
    """The same numbers in another shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(lambda x: x.reshape(len(x), *shape))

    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (a.reshape(len(a), *shapes[0]),)


class Add(Nonnegative):
    """The sum of two tensors of one shape."""

    def __init__(self) -> None:
        super().__init__(torch.add, 2)

    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return a, a
