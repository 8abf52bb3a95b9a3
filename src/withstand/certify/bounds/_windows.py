"""Functions of a small window of a picture, carried back without the zeros around it.

A value after a convolution depends on few numbers, so that early layers cost a fraction (the
patches of Xu et al. 2020). A window may reach over the picture's edge, where all is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ._activations import Lines
from ._linear import Convolution
from ._moves import Scaling
from ._operations import Interval, Operation, Shape
from ._reach import Reach

# Beyond this share of a picture the whole of it is as cheap.
_MOST = 0.5


class Place(NamedTuple):
    """Rows (R, h) and columns (R, w) of windows on pictures of samples `owner` (R,)."""

    owner: Tensor
    rows: Tensor
    columns: Tensor

    def inside(self, shape: Shape) -> Tensor:
        """What lies on a picture of this shape (C, H, W), (R, h, w)."""
        rows = (self.rows >= 0) & (self.rows < shape[1])
        columns = (self.columns >= 0) & (self.columns < shape[2])
        return rows[:, :, None] & columns[:, None]

    def of(self, values: Tensor) -> Tensor:
        """The windows (R, C, h, w) of pictures (B, C, H, W), 0 beyond their edges."""
        rows = self.rows.clamp(0, values.shape[2] - 1)[:, :, None]
        columns = self.columns.clamp(0, values.shape[3] - 1)[:, None]
        picked = values.permute(0, 2, 3, 1)[self.owner[:, None, None], rows, columns]
        return (picked * self.inside(tuple(values.shape[1:]))[..., None]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Windowed:
    """Linear functions a (R, C, h, w) of windows of pictures of one shape (C, H, W)."""

    a: Tensor
    place: Place
    shape: Shape

    @staticmethod
    def single(
        layer: Convolution, places: Tensor, owner: Tensor, out: Shape, shape: Shape
    ) -> Windowed:
        """Single values of a convolution, at flat places (R,) of its result of shape `out`."""
        kernel = layer.kernel
        rows, columns = (
            start[:, None] * step - pad + torch.arange(size, device=places.device)
            for start, size, step, pad in zip(
                (places // out[2] % out[1], places % out[2]),
                kernel.shape[2:],
                layer.stride,
                layer.padding,
                strict=True,
            )
        )
        place = Place(owner, rows, columns)
        a = kernel[places // (out[1] * out[2])]
        return Windowed(a * place.inside(shape)[:, None], place, shape)

    def times(self, factor: Tensor | float) -> Windowed:
        """The functions times a factor, one for all or (R,)."""
        if isinstance(factor, Tensor):
            factor = factor[:, None, None, None]
        return replace(self, a=self.a * factor)

    @property
    def worth(self) -> bool:
        """Whether the windows are much smaller than the pictures."""
        return self.a[0, 0].numel() < _MOST * self.shape[1] * self.shape[2]

    def whole(self) -> Tensor:
        """The functions (R, C, H, W) of the pictures."""
        (_, rows, columns), (channels, high, wide) = self.place, self.shape
        top, left = (int(at.min().clamp(max=0)) for at in (rows, columns))
        bottom = int(rows.max().clamp(min=high - 1)) + 1
        right = int(columns.max().clamp(min=wide - 1)) + 1
        full = self.a.new_zeros(len(self.a), bottom - top, right - left, channels)
        each = torch.arange(len(self.a), device=self.a.device)[:, None, None]
        full[each, (rows - top)[:, :, None], (columns - left)[:, None]] = self.a.permute(0, 2, 3, 1)
        full = full[:, -top : high - top, -left : wide - left]
        return full.permute(0, 3, 1, 2).contiguous()

    def through(
        self, operation: Operation, lines: object, shape: Shape
    ) -> tuple[Windowed, Tensor] | None:
        """As functions of the input, of this shape, and what is added; None where that cannot be.

        lines: those around the operation where it is an activation.
        """
        a, place = self.a, self.place
        if isinstance(lines, Lines):
            back, added = lines.over(place.of).pull(a, slice(None), None)
            return Windowed(back, place, shape), added
        if isinstance(operation, Scaling):
            alike = place._replace(owner=torch.zeros_like(place.owner))
            factor, shift = (
                alike.of(constant.expand(1, *self.shape)) for constant in operation.constants(a)
            )
            return Windowed(a * factor, place, shape), (a * shift).flatten(1).sum(1)
        if isinstance(operation, Convolution) and operation.plain:
            back = functional.conv_transpose2d(a, operation.kernel, None, operation.stride)
            rows, columns = (
                at[:, :1] * step - pad + torch.arange(size, device=a.device)
                for at, step, pad, size in zip(
                    (place.rows, place.columns),
                    operation.stride,
                    operation.padding,
                    back.shape[2:],
                    strict=True,
                )
            )
            wider = Place(place.owner, rows, columns)
            constant = operation.constant(a)
            added = constant if isinstance(constant, Tensor) else a.new_zeros(len(a))
            return Windowed(back * wider.inside(shape)[:, None], wider, shape), added
        return None

    def least(self, reach: Reach) -> Tensor:
        """Lower bounds (R,) of functions of the input's windows."""
        x, lower, upper = (self.place.of(v) for v in (reach.x, *reach.box))
        balls = tuple((norm, eps[self.place.owner]) for norm, eps in reach.balls)
        return Reach(x, Interval(lower, upper), balls).least(self.a, slice(None))
