"""The best example of each sample, harvested from every query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..threat import L0, L1, L2, Box, Frozen, Linf, Mask, Region
from ._contract import Attack
from ._problem import Problem

# By so much of its way from x an example goes farther, where fresh draws of a model reject it.
_FURTHER = (1.05, 1.1, 1.25, 1.5, 2.0)
# Of which samples, the points, the number of the query and what is to be small, all (H, ...).
_Found = tuple[Tensor, Tensor, Tensor, Tensor]


class Harvest:
    """What was found for samples (N,): found, the query of the first success, and the examples.

    bounded: the first example of a sample is enough; else the one of the least effort in `norm` is
    kept, best holds its effort. region: the threat's within the model's domain. confirmed: which of
    points (H, ...) of the samples at (H,) count, where a hit that was seen is not yet one.
    """

    def __init__(
        self, attack: Attack, samples: Problem, region: Region, norm: str, *, bounded: bool,
        confirmed: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.attack, self.samples, self.region = attack, samples, region
        self._confirmed = confirmed
        self.norm, self.bounded = norm, bounded
        # Then the bounds lower and upper say all there is to say about membership.
        boxes = Box | Mask | Frozen if attack.minimum_norm else Box | Mask | Frozen | Linf
        self.boxed = all(
            isinstance(part, boxes)
            or (isinstance(part, Linf | L2 | L1 | L0) and np.isinf(part.eps).all())
            for part in region
        )
        n, device = len(samples), samples.x.device
        self.found = torch.zeros(n, dtype=torch.bool, device=device)
        self.first = torch.full((n,), -1, dtype=torch.long, device=device)
        self.best = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
        self.x_adv = samples.x.clone()

    def add(self, where: Tensor, points: Tensor, number: Tensor, *, alone: bool) -> None:
        """Points (H, ...) that reached the goal, of the samples `where` (H,).

        number (H,): the how manieth query of its sample each was; alone: no sample is there twice.
        """
        key = number
        if not self.bounded:
            x, capability = self.samples.x[where], self.samples.capability
            key = self.attack.effort(x, points, self.norm, capability).double()
        found = where, points, number, key
        if not self.bounded:
            found = _those(key < self.best[where], found)
        kept = found if alone else _leaders(found)
        if not self._all_inside(kept):
            # Where a leader does not count, one behind it may.
            found = _those(self._inside(found), found)
            kept = found if alone else _leaders(found)
        if self._confirmed is not None and len(kept[0]):
            kept = _those(self._confirmed(kept[0], kept[1]), kept)
        where, points, number, key = kept
        if not self.bounded:
            number = torch.where(self.found[where], self.first[where], number)
            self.best[where] = key
        self.first[where] = number
        self.found[where] = True
        self.x_adv[where] = points

    def check(
        self, batch: int, hit: Callable[[Tensor, Tensor], Tensor] | None, *, further: bool = False
    ) -> Tensor:
        """Drop the examples outside the region, and those that do not hit; of which samples (M,).

        hit: which of points (B, ...) of samples (B,) reach the goal; None if that is known.
        further: an example that does not hit may do so a little farther from x.
        """
        lost = []
        factors = (1.0, *(_FURTHER if further else ()))
        for part in torch.split(self.found.nonzero()[:, 0], batch):
            for factor in factors:
                if not len(part):
                    break
                points = self.x_adv[part]
                if factor != 1:
                    x, lower, upper = (
                        getattr(self.samples, name)[part] for name in ("x", "lower", "upper")
                    )
                    points = torch.clamp(x + factor * (points - x), lower, upper)
                good = torch.from_numpy(self.contains(part, points)).to(part.device)
                if hit is not None:
                    good &= hit(part, points)
                self.x_adv[part[good]] = points[good]
                part = part[~good]
            lost.append(part)
        gone = torch.cat(lost) if lost else self.found.nonzero()[:, 0]
        self.found[gone], self.first[gone], self.best[gone] = False, -1, torch.inf
        return gone

    def _all_inside(self, found: _Found) -> bool:
        index, points, *_ = found
        if self.boxed:
            nearest = points.clamp(self.samples.lower[index], self.samples.upper[index])
            return torch.equal(nearest, points)
        return bool(self._inside(found).all())

    def _inside(self, found: _Found) -> Tensor:
        index, points, *_ = found
        if not len(index):
            return index > 0
        if self.boxed:
            inside = (points >= self.samples.lower[index]) & (points <= self.samples.upper[index])
            return inside.flatten(1).all(1)
        return torch.from_numpy(self.contains(index, points)).to(index.device)

    def contains(self, index: Tensor, points: Tensor) -> Any:
        """Whether points (H, ...) lie in the regions of the samples at index (H,), in float64."""
        region = self.region.take(index.cpu().numpy())
        return region.contains(self.samples.x[index].cpu().numpy(), points.cpu().numpy())


def _those(rows: Tensor, found: _Found) -> _Found:
    """These of what was found: positions, or a mask (H,); mostly it is all."""
    if rows.dtype == torch.bool and bool(rows.all()):
        return found
    where, points, number, key = found
    return where[rows], points[rows], number[rows], key[rows]


def _leaders(found: _Found) -> _Found:
    """The one of the smallest key of each sample; the first of equal ones."""
    where, _, _, key = found
    order = key.argsort(stable=True)
    order = order[where[order].argsort(stable=True)]
    row = where[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    return _those(order[first], found)
