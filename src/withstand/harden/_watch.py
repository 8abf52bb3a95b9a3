"""How well a net withstands attacks, looked at in passing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..threat import Region
from ._contract import Moment
from ._crafting import around, climb, crafting


class Seen(NamedTuple):
    """Which samples (N,) are right as they are, after one step, and all along an ascent."""

    clean: Tensor
    single: Tensor
    multi: Tensor


def withstood(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    regions: Sequence[Region],
    at: Moment,
    *,
    steps: int,
    single: bool = False,
    batch_size: int = 256,
) -> Seen:
    """Which samples x (N, ...) the net gets right at every point of PGD in each of the regions.

    One start and few steps: what is withstood is an upper bound. single: also take one whole step
    from each sample, in the first region. The net is held in eval mode. Costs a forward a sample,
    and for each region up to `steps` gradient passes and a forward, fewer where samples are fooled;
    single: a gradient pass more.
    """
    found = [
        _batch(net, some, label, regions, at, steps, single)
        for some, label in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    ]
    return Seen(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _batch(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    regions: Sequence[Region],
    at: Moment,
    steps: int,
    single: bool,
) -> Seen:
    with crafting(net):
        if single and regions:
            scores, gradient = climb(net, x, y)
            clean = scores.argmax(1) == y
            points = around(regions[0], x, at).ascend(x, gradient, 1.0)
            once = clean & _right(net, points, y)
        else:
            clean = _right(net, x, y)
            once = clean.clone()
        multi = clean.clone()
        for region in regions:
            rows = multi.nonzero()[:, 0]
            ball = around(region, x, at).take(rows)
            points = ball.start(at.noise)
            for _ in range(steps):
                if not len(rows):
                    break
                scores, gradient = climb(net, points, y[rows])
                right = scores.argmax(1) == y[rows]
                multi[rows[~right]] = False
                rows, ball = rows[right], ball.take(right)
                points = ball.ascend(points[right], gradient[right], 2.5 / steps)
            if len(rows):
                multi[rows] = _right(net, points, y[rows])
    return Seen(clean, once, multi)


def _right(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which of x (N, ...) the net gets right, (N,); 1 forward."""
    with torch.no_grad():
        right: Tensor = net(x).argmax(1) == y
    return right
