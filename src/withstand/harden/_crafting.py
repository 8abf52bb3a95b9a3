"""What all recipes craft points with: a net held still, and the region around a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ThreatError
from ..attacks import Problem, length, project
from ..threat import L0, L1, L2, Box, Frozen, Linf, Mask, Region, Untargeted
from ._contract import Moment

# Share of the features that an L1 step moves (SLIDE, Tramèr and Boneh 2019): one alone would need a
# step for each feature, and many move too little to pass a network's thresholds.
_MOVED = 0.01


@contextmanager
def crafting(net: nn.Module) -> Iterator[None]:
    """Eval mode and frozen parameters inside, every mode and every parameter as it was afterwards.

    Batch norm then neither learns from half-made points nor changes between two steps, and no pass
    is spent on gradients of weights.
    """
    modes = [(module, module.training) for module in net.modules()]
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    try:
        net.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in learning:
            parameter.requires_grad_(True)


class _Faced(nn.Module):
    def __init__(self, net: nn.Module, preprocess: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        # In a tuple, so that what is a module there does not learn along.
        self.before = (preprocess,)

    def forward(self, x: Tensor) -> Any:
        return self.net(self.before[0](x))


def faced(net: nn.Module, preprocess: Callable[[Tensor], Tensor] | None) -> nn.Module:
    """The net on raw input, as an attacker faces it."""
    return net if preprocess is None else _Faced(net, preprocess)


def _entropy(scores: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(scores, y, reduction="sum")


def slope(
    net: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = _entropy
) -> Tensor:
    """Gradient (B, ...) of a loss of scores and labels, summed over the batch, with respect to x.

    Cross-entropy if no loss is given; 1 forward and 1 backward.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(net(x), y), x)
    return gradient


def climb(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, K), and the gradient (B, ...) of cross-entropy with respect to x; 1
    forward and 1 backward."""
    x = x.detach().requires_grad_()
    scores = net(x)
    (gradient,) = torch.autograd.grad(cross_entropy(scores, y, reduction="sum"), x)
    return scores.detach(), gradient


@dataclass(frozen=True, kw_only=True)
class Ball:
    """What can be reached around a batch: a box, and in it a ball of one norm and radius eps."""

    problem: Problem
    eps: float

    def take(self, rows: Tensor) -> Ball:
        """What can be reached around some of the samples, by indices or a mask."""
        return Ball(problem=self.problem.take(rows), eps=self.eps)

    def project(self, points: Tensor) -> Tensor:
        """The points (B, ...) brought into the region; the nearest ones, nearly so in L2."""
        return project(self.problem, points)

    def start(self, noise: torch.Generator) -> Tensor:
        """A random point of the region for each sample.

        Uniform in Linf, a random direction of random length in L2 and L1, random values of random
        features in L0.
        """
        x, norm = self.problem.x, self.problem.norm
        if norm == "linf":
            return self.project(torch.add(x, uniform(x, noise), alpha=self.eps))
        if norm == "l0":
            lower, upper = self.problem.lower, self.problem.upper
            anywhere = torch.addcmul(lower, upper - lower, uniform(x, noise).abs())
            return _moved(x, anywhere, uniform(x, noise), self.eps)
        spread = torch.randn(x.shape, generator=noise, dtype=x.dtype, device=x.device)
        far = torch.rand(len(x), generator=noise, dtype=x.dtype, device=x.device)
        size = self.eps * far / length(spread, norm).clamp_min(1e-12)
        return self.project(torch.addcmul(x, spread, self.problem.column(size)))

    def ascend(self, points: Tensor, gradient: Tensor, share: float) -> Tensor:
        """One step of steepest ascent of the loss, projected; share: its size over the radius.

        Linf: signs. L2: the normalised gradient. L1: signs of the steepest features that can still
        move (Tramèr and Boneh 2019). L0: the features that gain most go to their bounds.
        """
        norm, size = self.problem.norm, share * self.eps
        if norm == "linf":
            return self.project(torch.add(points, gradient.sign(), alpha=size))
        if norm == "l2":
            steep = self.problem.column(size / length(gradient, "l2").clamp_min(1e-12))
            return self.project(torch.addcmul(points, gradient, steep))
        edge = torch.where(gradient > 0, self.problem.upper, self.problem.lower)
        if norm == "l0":
            gain = gradient * (edge - points)
            edge = torch.where(gain > 0, edge, points)
            return self.project(_moved(points, edge, gain, max(size, 1.0)))
        steep = torch.where(edge == points, 0.0, gradient.abs())
        count = ceil(_MOVED * points.shape[1:].numel())
        ahead = torch.add(points, gradient.sign(), alpha=size / count)
        return self.project(_moved(points, ahead, steep, count))


def around(region: Region, x: Tensor, at: Moment) -> Ball:
    """What an attacker reaches around a batch x (B, ...) at this moment of a training.

    Cheap enough for every batch, and rounded to the nearest float, not inward. Raises ThreatError
    for two balls other than Linf, radii or boxes of single samples, and L0 without finite bounds.
    """
    balls = [part for part in region if isinstance(part, Linf | L2 | L1 | L0)]
    balls.sort(key=lambda ball: isinstance(ball, Linf))
    if not balls or (len(balls) > 1 and not isinstance(balls[1], Linf)):
        raise ThreatError(
            f"the region is {region.describe()}; train within one ball, and at most Linf besides"
        )
    lower, upper = (x.new_tensor(bound) for bound in (-torch.inf, torch.inf))
    for part in (*region, at.domain):
        if isinstance(part, Linf):
            eps = at.scale * _radius(part.eps)
            lower, upper = torch.maximum(lower, x - eps), torch.minimum(upper, x + eps)
        elif isinstance(part, Box):
            lower = torch.maximum(lower, _bound(part.lower, x))
            upper = torch.minimum(upper, _bound(part.upper, x))
        elif isinstance(part, Mask | Frozen):
            held = _held(part, x)
            lower, upper = torch.where(held, x, lower), torch.where(held, x, upper)
    norm, radius = balls[0].name, at.scale * _radius(balls[0].eps)
    if norm == "l0":
        radius = float(ceil(radius))
        if not bool(torch.isfinite(upper - lower).all()):
            raise ThreatError("L0 has no bounds for what a feature becomes; give a finite domain")
    row = torch.zeros(len(x), dtype=torch.long, device=x.device)
    problem = Problem(
        x=x,
        y=row,
        key=row,
        lane=row,
        target=row,
        eps=x.new_full((len(x),), radius),
        lower=lower.expand_as(x),
        upper=upper.expand_as(x),
        norm=norm,
        goal=Untargeted(),
        seed=0,
    )
    return Ball(problem=problem, eps=radius)


def uniform(x: Tensor, noise: torch.Generator) -> Tensor:
    """Noise between -1 and 1 in the shape of x."""
    return torch.empty_like(x).uniform_(-1, 1, generator=noise)


def _moved(points: Tensor, to: Tensor, rank: Tensor, count: float) -> Tensor:
    """The points (B, ...) with their `count` features of highest rank replaced."""
    most = min(ceil(count), points.shape[1:].numel())
    place = rank.flatten(1).topk(most, dim=1).indices
    moved = points.flatten(1).scatter(1, place, to.flatten(1).gather(1, place))
    return moved.reshape(points.shape)


def _radius(eps: float | np.ndarray) -> float:
    if not isinstance(eps, float):
        raise ThreatError("the region has a radius for each sample; training needs one for all")
    return eps


def _bound(bound: float | np.ndarray, x: Tensor) -> Tensor:
    """A bound that broadcasts against a batch x (B, ...)."""
    values = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
    if values.ndim >= x.ndim and len(values) > 1:
        raise ThreatError("the region has a box for each sample; training needs one for all")
    return values


def _held(part: Mask | Frozen, x: Tensor) -> Tensor:
    """Which features (...) of a sample cannot change."""
    if isinstance(part, Mask):
        if part.free.ndim >= x.ndim and len(part.free) > 1:
            raise ThreatError("the region has a mask for each sample; training needs one for all")
        return torch.as_tensor(~part.freed((1, *x.shape[1:])), device=x.device)
    held = torch.zeros(x[0].numel(), dtype=torch.bool, device=x.device)
    held[list(part.columns)] = True
    return held.reshape(x.shape[1:])
