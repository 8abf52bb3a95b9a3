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
    from each sample, in the first region. The net is held in eval mode. Costs up to `steps` + 1
    passes a sample and region, fewer where samples are fooled.
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
        scores, gradient = climb(net, x, y)
        clean = scores.argmax(1) == y
        once, multi = clean.clone(), clean.clone()
        if single and regions:
            points = around(regions[0], x, at).ascend(x, gradient, 1.0)
            with torch.no_grad():
                once &= net(points).argmax(1) == y
        for region in regions:
            rows = multi.nonzero()[:, 0]
            ball = around(region, x, at).take(rows)
            points = ball.start(at.noise)
            for step in range(steps + 1):
                if not len(rows):
                    break
                scores, gradient = climb(net, points, y[rows])
                right = scores.argmax(1) == y[rows]
                multi[rows[~right]] = False
                if step < steps:
                    rows, ball = rows[right], ball.take(right)
                    points = ball.ascend(points[right], gradient[right], 2.5 / steps)
    return Seen(clean, once, multi)
