"""Known changes of pictures whose gradient stands in for that of a step which has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._jpeg import Jpeg
from ._median import Median

Change = Jpeg | Median
_CLOSER = 0.5


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A change of pictures with a gradient, for a step outside torch that does much the same.

    channel: the axis of the channels, None for grey pictures (B, H, W) without one; scale: the
    value of white.
    """

    change: Change
    channel: int | None = 1
    scale: float = 1.0

    def __call__(self, source: Tensor) -> Tensor | None:
        """Pictures source as they would come back, with their gradient; None for other shapes."""
        rank = 3 if self.channel is None else 4
        if source.ndim != rank:
            return None
        x = source / self.scale
        x = x[:, None] if self.channel is None else x.movedim(self.channel, 1)
        if x.shape[1] not in (1, 3):
            return None
        out = self.change(x, np.random.default_rng(0))
        out = out[:, 0] if self.channel is None else out.movedim(1, self.channel)
        return out * self.scale


def nearest(value: Tensor, source: Tensor, line: Tensor) -> StandIn | None:
    """The known change that makes of source most nearly value; None where a line does as well."""
    given, wanted = (t.detach().float() for t in (source, value))
    best = _CLOSER * float((line.detach().float() - wanted).abs().mean())
    found = None
    with torch.no_grad():
        for stand_in in _known(given):
            made = stand_in(given)
            off = np.inf if made is None else float((made - wanted).abs().mean())
            if off < best:
                best, found = off, stand_in
    return found


def _known(given: Tensor) -> Iterator[StandIn]:
    scale = 255.0 if float(given.max()) > 2 else 1.0
    changes: tuple[Change, ...] = (
        *(Jpeg(quality=quality) for quality in range(1, 101)),
        *(Median(size=size) for size in (3, 5, 7)),
    )
    for channel in (None,) if given.ndim == 3 else (1, 3):
        for change in changes:
            yield StandIn(change=change, channel=channel, scale=scale)
