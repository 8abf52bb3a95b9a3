"""ALMA: an augmented Lagrangian, whose multiplier follows the margin of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length
from ._contract import Attack, Query, Seen
from ._losses import loss
from ._noise import normal
from ._plane import onto_plane
from ._problem import Problem

# On the boundary itself a tie decides: the constraint asks for a little more.
_BEYOND = 1e-4
# Longer first steps than the paper's (0.1 and 0.5) pass by the poor minima near x that robust
# training leaves.
_FIRST = {"l2": 0.3, "l1": 2.0}
_LEAST, _MOST = 1e-6, 1e12
# The ending: the nearest example once more, turns of it, then cuts, the first of the widest share.
_ENDING, _CUTS, _WIDEST = 7, 3, 0.01
# Turns pay longer where the ball is round.
_LONGEST = {"l2": 12, "l1": _ENDING}
# Turns aim a little beyond the linear boundary, which most real ones bend away from.
_AIM = 1.005


class _State(NamedTuple):
    points: Tensor
    square: Tensor
    momentum: Tensor
    rate: Tensor
    multiplier: Tensor  # mu
    penalty: Tensor  # rho
    missed: Tensor  # by how much, when progress was last checked
    found: Tensor  # the step of the first success, -1 before it
    nearest: Tensor  # the example of the least length,
    best: Tensor  # that length,
    gap: Tensor  # and the share of the way to it that the next cut leaves out
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class ALMA(Attack):
    """The augmented Lagrangian attack (Rony et al. 2021, algorithm 1), in L2 and L1.

    RMSProp with momentum descends the change's length plus the penalty function P2 of the
    difference of logits ratio. The multiplier is a moving average of P2's slope, and rho grows by a
    fifth every 10 steps without a success or a drop of the ratio to 95 %. Averages take 1 - 50 /
    steps of their past, at least 0.6. Where this differs from the paper: the ratio's gradient is
    blended over all rival classes, less and less along a cosine; and the last 7 steps, of 300 in
    L2 the last 12, turn the nearest example half-way towards the nearest point of the boundary,
    linear as it looks from there, and bisect what is left of the way from x. 1 forward + 1 backward
    a step.
    """

    steps: int = 300
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("l2", "l1")
    minimum_norm: ClassVar[bool] = True

    def init(self, problem: Problem) -> _State:
        one = torch.ones_like(problem.eps)
        return _State(
            points=problem.x,
            square=torch.ones_like(problem.x),
            momentum=torch.zeros_like(problem.x),
            rate=one,
            multiplier=one,
            penalty=one,
            missed=one,
            found=torch.full_like(problem.lane, -1),
            nearest=problem.x,
            best=torch.full_like(problem.eps, torch.inf),
            gap=torch.full_like(problem.eps, _WIDEST),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        temperature = (1 + torch.cos(pi * (state.step / self._descent(problem)).clamp_max(1))) / 2
        objective = partial(loss, "dlr", problem, temperature=temperature)
        return Query(state.points, state.step < self.steps, objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        column, begun = problem.column, state.step > 0
        gradient = -seen.gradient
        lost = ~begun & (length(gradient, "l2") == 0)
        if bool(lost.any()):
            # Where there is no gradient any first direction is as good.
            drawn = normal(problem, 1, state.step, problem.x[0].numel()).reshape(problem.x.shape)
            gradient = torch.where(column(lost), drawn, gradient)
        away = state.points - problem.x
        missed = _BEYOND - seen.loss
        found = torch.where(seen.hit & (state.found < 0), state.step, state.found)
        alpha = max(1 - 50 / self.steps, 0.6)

        check = begun & ((state.step + 1) % 10 == 0)
        stuck = check & (found < 0) & (missed >= 0.95 * state.missed)
        penalty = torch.where(stuck, 1.2 * state.penalty, state.penalty).clamp_max(_MOST)
        fresh = _pull(missed, penalty, state.multiplier)
        fresh = torch.lerp(fresh, state.multiplier, alpha).clamp(_LEAST, _MOST)
        multiplier = torch.where(begun, fresh, state.multiplier)
        pull = _pull(missed, penalty, multiplier).clamp_max(_MOST)
        if problem.norm == "l2":
            shorter = away / column(length(away, "l2").clamp_min(1e-12))
        else:
            shorter = away.sign()
        slope = shorter + column(pull) * gradient

        free = torch.where(slope > 0, state.points > problem.lower, state.points < problem.upper)
        size = length(torch.where(free, slope, 0.0), problem.norm).clamp_min(1e-12)
        rate = torch.where(begun, state.rate, _FIRST[problem.norm] / size)
        since = torch.where(found < 0, 0, state.step - found) / (
            self._descent(problem) - found
        ).clamp_min(1)
        # In float64 because kernels round powers differently at the end of a batch.
        falling = torch.pow(0.01, since.double()).float()
        square = torch.lerp(slope.square(), state.square, alpha)
        momentum = alpha * state.momentum + slope / (square.sqrt() + 1e-8)
        points = state.points - column(rate * falling) * momentum

        distance = length(away, problem.norm)
        closer = seen.hit & (distance < state.best)
        best = torch.where(closer, distance, state.best)
        nearest = torch.where(column(closer), seen.points, state.nearest)
        # Without an example there is nothing to end with.
        left = torch.where(best.isfinite(), self.steps - 1 - state.step, self.steps)
        gap = torch.where(left < _CUTS, state.gap / 2, state.gap)
        ending = self._ending(problem)
        if bool((left <= ending).any()):
            turned, cut = _turned(problem, seen), torch.lerp(nearest, problem.x, column(gap))
            points = torch.where(column(left <= ending), nearest, points)
            points = torch.where(column(left < ending), turned, points)
            points = torch.where(column(left <= min(_CUTS, ending)), cut, points)
        return _State(
            points=torch.clamp(points, problem.lower, problem.upper),
            nearest=nearest,
            best=best,
            gap=gap,
            square=square,
            momentum=momentum,
            rate=rate,
            multiplier=multiplier,
            penalty=penalty,
            missed=torch.where(check | ~begun, missed, state.missed),
            found=found,
            step=state.step + 1,
        )

    def _ending(self, problem: Problem) -> int:
        longest = min(_LONGEST[problem.norm], max(_ENDING, self.steps // 25))
        return min(longest, self.steps // 10)

    def _descent(self, problem: Problem) -> int:
        return self.steps - self._ending(problem)


def _turned(problem: Problem, seen: Seen) -> Tensor:
    """Half-way from the points seen (B, ...) to the point of their linear boundary nearest to x."""
    assert seen.gradient is not None
    assert seen.loss is not None
    drop = -(seen.loss + (seen.gradient * (problem.x - seen.points)).flatten(1).sum(1))
    nearest = onto_plane(problem, problem.x, -seen.gradient, _AIM * drop.clamp_min(0))
    return torch.lerp(seen.points, nearest, 0.5)


def _pull(missed: Tensor, penalty: Tensor, multiplier: Tensor) -> Tensor:
    """The slope of P2: mu y + mu rho y^2 + rho^2 y^3 / 6 from 0 on, else mu y / (1 - rho y)."""
    above = multiplier + 2 * multiplier * penalty * missed + (penalty * missed).square() / 2
    below = multiplier / (1 - penalty * missed.clamp_max(0)).square()
    return torch.where(missed >= 0, above, below)
