"""PDPGD: a game between the change's length and the margin, with proximal steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log, pi
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._problem import Problem

_INNER = 5
# In L2 and L1 the reference's 0.1 gives longer changes on average, on standard and robust networks
# alike.
_RATE = {"linf": 0.1, "l2": 0.3, "l1": 0.2, "l0": 0.1}
_LIMIT = log(1e6)


class _State(NamedTuple):
    points: Tensor
    mean: Tensor
    square: Tensor
    dual: Tensor  # log of the loss's weight over the length's
    weight: Tensor  # the loss's share, averaged over the steps
    found: Tensor  # an example has been seen
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class PDPGD(Attack):
    """Primal-dual proximal gradient descent (Matyasko and Chau 2021, algorithm 1), all four norms.

    The change descends softplus(margin) by Adam, and a proximal step in Adam's metric shortens it
    (in L2 its length is descended as well, PDGD); the multiplier ascends while the sample is right.
    L0 is stood in for by the sum of |d|^(2/3). rate: Adam's first; if not given 0.3 in L2, 0.2 in
    L1, else 0.1. Where this differs from the paper: in L0 the margin's gradient is blended over all
    rival classes, less and less along a cosine; and a row without an example at half of the steps
    begins again, from x inverted within the box. 1 forward + 1 backward a step.
    """

    steps: int = 500
    rate: float | None = None
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2", "l1", "l0")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        none = torch.zeros_like(problem.eps)
        return _State(
            points=problem.x,
            mean=torch.zeros_like(problem.x),
            square=torch.zeros_like(problem.x),
            dual=none + log(100),
            weight=none + 1 / (1 + 0.01),
            found=torch.zeros_like(problem.lane, dtype=torch.bool),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        falling = (1 + _exactly(torch.cos, pi * state.step / self.steps)) / 2
        temperature = falling if problem.norm == "l0" else None
        objective = partial(loss, "margin", problem, temperature=temperature)
        return Query(state.points, state.step < self.steps, objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        column, share, number = problem.column, state.step / self.steps, state.step + 1
        # The gradient of softplus(margin); the loss is the margin, negated. Kernels round such
        # functions differently at the end of a batch, so that they are worked out in float64
        # wherever they reach a point.
        slope = -column(_exactly(torch.sigmoid, -seen.loss)) * seen.gradient
        if problem.norm == "l2":
            # The length has a gradient everywhere but at x: no proximal step is needed (PDGD).
            away = state.points - problem.x
            pull = away / column(length(away, "l2").clamp_min(1e-12))
            slope = column(state.weight) * slope + column(1 - state.weight) * pull
        mean = torch.lerp(slope, state.mean, 0.9)
        square = torch.lerp(slope.square(), state.square, 0.999)
        fresh, slow = 1 - _power(0.9, number), 1 - _power(0.999, number)
        metric = (square / column(slow)).sqrt() + 1e-8
        rate = (self.rate or _RATE[problem.norm]) * _power(0.01, share)
        change = state.points - problem.x - column(rate / fresh) * mean / metric

        # The multiplier climbs while the sample is right: sign of the margin.
        turn = torch.where(seen.hit, -0.1, 0.1) * _power(0.1, share)
        dual = (state.dual + turn).clamp(-_LIMIT, _LIMIT)
        weight = torch.lerp(_exactly(torch.sigmoid, dual), state.weight, 0.9)
        ratio = rate * (1 - weight) / weight
        if problem.norm != "l2":
            change = _shortened(problem.norm, change, metric, ratio)
        points = problem.x + change
        found = state.found | seen.hit
        again = ~found & (number == self.steps // 2)
        if bool(again.any()):
            afresh = self.init(problem)
            inverted = problem.lower + problem.upper - problem.x
            points = torch.where(column(again) & inverted.isfinite(), inverted, points)
            mean = torch.where(column(again), 0.0, mean)
            dual = torch.where(again, afresh.dual, dual)
            weight = torch.where(again, afresh.weight, weight)
        return _State(
            points=torch.clamp(points, problem.lower, problem.upper),
            mean=mean,
            square=square,
            dual=dual,
            weight=weight,
            found=found,
            step=number,
        )


def _power(base: float, exponent: Tensor) -> Tensor:
    return _exactly(lambda n: torch.pow(base, n), exponent)


def _exactly(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    return function(values.double()).float()


def _shortened(norm: str, change: Tensor, metric: Tensor, ratio: Tensor) -> Tensor:
    """The proximal point of ratio * length in the metric: nearly, by a few steps, but in L0."""
    flat, scale = change.flatten(1), metric.flatten(1)
    if norm == "l0":
        # It separates over the features, so that each has its own threshold.
        return proximal(norm, flat, ratio[:, None] / scale).reshape(change.shape)
    largest = scale.amax(1, keepdim=True)
    point = flat
    for _ in range(_INNER):
        toward = point - scale / largest * (point - flat)
        point = proximal(norm, toward, ratio[:, None] / largest)
    return point.reshape(change.shape)


def proximal(norm: str, v: Tensor, t: Tensor) -> Tensor:
    """The minimiser z (B, d) of |z - v|^2 / 2 + t |z| for t (B, 1), or (B, d) where it separates.

    |z| is the norm's length, in L0 the sum of |z|^(2/3) (Cao, Sun and Xu 2013, theorem 1).
    """
    if norm == "l1":
        return v.sign() * (v.abs() - t).clamp_min(0)
    if norm == "linf":
        # Moreau: what is left of v is its projection onto the L1 ball of radius t.
        return v - _onto_l1(v, t)
    size, doubled = v.abs().double(), (2 * t).double().clamp_min(1e-30)
    edge = 48**0.25 / 3 * doubled**0.75
    angle = (27 / 16 * size.square() * doubled**-1.5).clamp_min(1.0).acosh()
    root = 2 / 3**0.5 * doubled**0.25 * (angle / 3).cosh().sqrt()
    value = ((root + (2 * size / root - root.square()).clamp_min(0).sqrt()) / 2) ** 3
    return torch.where(size > edge, v.sign() * value.to(v.dtype), 0.0)


def _onto_l1(v: Tensor, radius: Tensor) -> Tensor:
    """The nearest points (B, d) in L1 balls of radius (B, 1) (Duchi et al. 2008)."""
    size = v.abs()
    falling = size.sort(dim=1, descending=True).values
    count = torch.arange(1, v.shape[1] + 1, device=v.device)
    excess = (falling.cumsum(1) - radius) / count
    kept = (falling > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = excess.gather(1, kept - 1).clamp_min(0)
    return v.sign() * (size - threshold).clamp_min(0)
