"""Layers with weights: fully connected and convolutions."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod

from torch import Tensor
from torch.nn import functional

from ._operations import Affine, Interval, Pulled, Shape, Unit, against


class _Matrix(Affine):
    """A linear layer: weight, bias, and the sums that it takes."""

    weight: Tensor
    bias: Tensor | None

    @property
    def kernel(self) -> Tensor:
        """The weight as `apply` takes it; the module's own, so that gradients reach it."""
        return self.weight

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...

    def __call__(self, *x: Tensor) -> Tensor:
        return self.apply(x[0], self.kernel, self.bias)

    def interval(self, *boxes: Interval) -> Interval:
        ((lower, upper),) = boxes
        # Halves of weights are as exact as halves of values, and far fewer.
        half = self.kernel / 2
        centre = self.apply(lower + upper, half, self.bias)
        radius = self.apply(upper - lower, half.abs(), None)
        return Interval(centre - radius, centre + radius)

    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        terms = prod(self.kernel.shape[1:]) + 1
        weight, bias = self.kernel.abs(), None if self.bias is None else self.bias.abs()
        fresh = self.apply(boxes[0].largest + errors[0], weight, bias)
        return self.apply(errors[0], weight, None) + unit.products(terms) * fresh


@dataclass(frozen=True, eq=False)
class Linear(_Matrix):
    """A fully connected layer on the last axis; weight (out, in), or turned (in, out)."""

    weight: Tensor
    bias: Tensor | None = None
    turned: bool = False

    @property
    def kernel(self) -> Tensor:
        return self.weight.T if self.turned else self.weight

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (a @ self.kernel,)

    def constant(self, a: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else against(a, self.bias)

    def single(self, places: Tensor, shape: Shape, shapes: tuple[Shape, ...]) -> Pulled:
        if len(shape) > 1:
            return super().single(places, shape, shapes)
        return (self.kernel[places],), 0.0 if self.bias is None else self.bias[places]


@dataclass(frozen=True, eq=False)
class Convolution(_Matrix):
    """A convolution over two axes with zero padding; weight (out, in / groups, high, wide).

    A weight without `high` is one of a single row.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @property
    def kernel(self) -> Tensor:
        return self.weight if self.weight.ndim == 4 else self.weight[:, :, None]

    @property
    def plain(self) -> bool:
        """Whether a value depends on a window of all channels without gaps."""
        return self.groups == 1 and self.dilation == (1, 1)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        options = (self.stride, self.padding, self.dilation, self.groups)
        return functional.conv2d(x, weight, bias, *options)

    def pull(self, a: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        # What a stride leaves over at the far edge has to be asked for.
        reached = (
            (out - 1) * s - 2 * p + d * (k - 1) + 1
            for out, k, s, p, d in zip(
                a.shape[2:],
                self.kernel.shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )
        left = tuple(size - end for size, end in zip(shapes[0][1:], reached, strict=True))
        options = (self.stride, self.padding, left, self.groups, self.dilation)
        return (functional.conv_transpose2d(a, self.kernel, None, *options),)

    def constant(self, a: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else a.flatten(2).sum(2) @ self.bias
