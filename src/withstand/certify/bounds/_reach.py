"""What an attacker can reach around x, and the least value of linear functions over it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..._errors import ThreatError
from ...threat import L0, L1, L2, Box, Frozen, Linf, Mask, Region
from ._operations import Interval


class Reach(NamedTuple):
    """A box around x (B, ...) in float64, rounded outward, and balls of radius eps (B,) in it."""

    x: Tensor
    box: Interval
    balls: tuple[tuple[str, Tensor], ...] = ()

    def take(self, rows: Tensor) -> Reach:
        """That of some samples."""
        box = Interval(self.box.lower[rows], self.box.upper[rows])
        return Reach(self.x[rows], box, tuple((norm, eps[rows]) for norm, eps in self.balls))

    def least(self, a: Tensor, owner: Tensor | slice) -> Tensor:
        """Lower bounds (R,) of linear functions a (R, ...) of the input of sample `owner` (R,).

        The exact minimum over the box or, without a box that binds, over the ball (by its dual
        norm); where both bind, the larger of the two.
        """
        flat = a.flatten(1)
        lower, upper = self.box.lower.flatten(1), self.box.upper.flatten(1)
        centre, radius = (lower + upper) / 2, (upper - lower) / 2
        found: Tensor = torch.linalg.vecdot(flat, centre[owner])
        found = found - torch.linalg.vecdot(flat.abs(), radius[owner])
        for norm, eps in self.balls:
            x = self.x.flatten(1)[owner]
            at = torch.linalg.vecdot(flat, x)
            if norm == "l0":
                lost = torch.where(flat > 0, flat * (x - lower[owner]), flat * (x - upper[owner]))
                found = torch.maximum(found, at - _few(lost, eps[owner]))
                continue
            moving = flat * (upper > lower)[owner]
            order = torch.inf if norm == "l1" else 2
            dual = torch.linalg.vector_norm(moving, ord=order, dim=1)
            # Nothing moves along a function of zero, even where the ball has no end.
            fall = torch.where(dual > 0, eps[owner] * dual, 0.0)
            found = torch.maximum(found, at - fall)
        return found


def _few(lost: Tensor, count: Tensor) -> Tensor:
    """The sum (R,) of the `count` (R,) largest of what each feature can lose (R, N)."""
    most = int(count.max().clamp(max=lost.shape[1]))
    if most == 0:
        return lost.new_zeros(len(lost))
    best = lost.topk(most, dim=1).values
    places = torch.arange(most, device=lost.device)
    return torch.where(places < count.floor()[:, None], best, 0.0).sum(1)


def reach(region: Region, x: Tensor, domain: Box | None = None) -> Reach:
    """What a region, cut to a model's domain, leaves around x (B, ...), which it must contain.

    Raises ThreatError for x outside the box, and for a region without any end.
    """
    x = x.detach().double()
    origin = x.cpu().numpy()
    lower, upper = np.full_like(origin, -np.inf), np.full_like(origin, np.inf)
    balls = []
    for part in (*region, *(() if domain is None else (domain,))):
        if isinstance(part, L2 | L1 | L0):
            balls.append((part.name, _radii(part.eps, len(x)).to(x.device)))
        if isinstance(part, Linf | L2 | L1):
            eps = np.asarray(part.eps, np.float64).reshape(-1, *(1,) * (origin.ndim - 1))
            lower = np.maximum(lower, np.nextafter(origin - eps, -np.inf))
            upper = np.minimum(upper, np.nextafter(origin + eps, np.inf))
        elif isinstance(part, Box):
            least, most = part.bounds(origin.shape)
            lower, upper = np.maximum(lower, least), np.minimum(upper, most)
        elif isinstance(part, Mask | Frozen):
            held = ~part.freed(origin.shape) if isinstance(part, Mask) else _columns(part, origin)
            lower, upper = np.where(held, origin, lower), np.where(held, origin, upper)
    if ((origin < lower) | (origin > upper)).any():
        raise ThreatError(
            "inputs lie outside the model's domain; give raw inputs, and put normalisation into the"
            " model's preprocess, or set domain"
        )
    if not (np.isfinite(lower) & np.isfinite(upper)).all():
        raise ThreatError(
            f"the region {region.describe()} has no end; a proof needs a finite radius or domain"
        )
    ends = (torch.from_numpy(np.ascontiguousarray(bound)).to(x.device) for bound in (lower, upper))
    return Reach(x, Interval(*ends), tuple(balls))


def _radii(eps: float | np.ndarray, samples: int) -> Tensor:
    return torch.from_numpy(np.broadcast_to(np.asarray(eps, np.float64), (samples,)).copy())


def _columns(part: Frozen, origin: np.ndarray) -> np.ndarray:
    held = np.zeros((len(origin), origin[0].size), bool)
    held[:, list(part.columns)] = True
    return held.reshape(origin.shape)
