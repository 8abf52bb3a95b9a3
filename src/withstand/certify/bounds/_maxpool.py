"""Max pooling: the largest of a few numbers, between a number of its own and a constant."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ._activations import Activation, Relaxation
from ._operations import Interval, Shape, Unit


@dataclass(frozen=True, eq=False)
class _Chosen(Relaxation):
    """Below: the member that is surely largest or has the largest lower bound; above: a constant.

    place: that member's place in its channel, (B, C, L); sure: whether no other can exceed it.
    """

    place: Tensor
    sure: Tensor
    most: Tensor
    shape: Shape

    def take(self, rows: Tensor) -> _Chosen:
        return _Chosen(self.place[rows], self.sure[rows], self.most[rows], self.shape)

    def pull(
        self, a: Tensor, owner: Tensor | slice, slopes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        a = a.flatten(2)
        negative = a.clamp(max=0)
        sure = self.sure[owner]
        through = torch.where(sure, a, a - negative)
        flat = a.new_zeros(len(a), self.shape[0], prod(self.shape[1:]))
        flat = flat.scatter_add(2, self.place[owner], through)
        added = torch.where(sure, 0.0, negative * self.most[owner]).flatten(1).sum(1)
        return flat.reshape(len(a), *self.shape), added


@dataclass(frozen=True, eq=False)
class MaxPool(Activation):
    """Max pooling over two axes.

    members: which places of a channel each window holds, (L, k), -1 outside; out: shape of the
    result, one sample's.
    """

    members: Tensor
    out: Shape

    @staticmethod
    def over(
        shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape
    ) -> MaxPool:
        """For inputs of one sample's shape (C, H, W), by the options of the pooling."""
        places = torch.arange(1, prod(shape[1:]) + 1, dtype=torch.float64)
        places = places.reshape(1, 1, *shape[1:])
        windows = functional.unfold(places, kernel, dilation, padding, stride)
        size = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
        )
        return MaxPool(windows[0].T.long() - 1, (shape[0], *size))

    def _windows(self, x: Tensor) -> Tensor:
        """The members of every window, (B, C, L, k)."""
        members = self.members.to(x.device)
        return x.flatten(2)[:, :, members.clamp(min=0)].masked_fill(members < 0, -torch.inf)

    def __call__(self, *x: Tensor) -> Tensor:
        return self._windows(x[0]).amax(-1).reshape(len(x[0]), *self.out)

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(self(boxes[0].lower), self(boxes[0].upper))

    def contested(self, box: Interval) -> Tensor:
        """Members of windows where more than one may be largest."""
        lower, upper = self._windows(box.lower), self._windows(box.upper)
        may = upper > lower.amax(-1, keepdim=True)
        may = may & (may.sum(-1, keepdim=True) > 1)
        flat = torch.zeros_like(box.lower.flatten(2))
        members = self.members.to(flat.device).clamp(min=0).flatten().expand(*flat.shape[:2], -1)
        return (flat.scatter_add(2, members, may.flatten(2).to(flat)) > 0).reshape(box.lower.shape)

    def relax(self, box: Interval, found: Interval | None = None) -> Relaxation:
        lower, upper = self._windows(box.lower), self._windows(box.upper)
        best = lower.argmax(-1, keepdim=True)
        others = upper.scatter(-1, best, -torch.inf).amax(-1)
        members = self.members.to(best.device).expand(*lower.shape[:2], -1, -1)
        return _Chosen(
            place=members.gather(-1, best)[..., 0],
            sure=others <= lower.amax(-1),
            most=upper.amax(-1),
            shape=tuple(box.lower.shape[1:]),
        )

    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        return self(errors[0])
