"""One change for all inputs: a driver over a data set, above the engine and its batch promise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import DataError, ModelError, ThreatError
from ..models import Model
from ..stats import Interval, wilson
from ..threat import Region, Threat, check_goal
from ._ball import length, reach
from ._contract import allowed
from ._losses import loss
from ._problem import Problem


@dataclass(frozen=True, kw_only=True)
class Universal:
    """A change (...) of one input's shape, and the share of right answers that it turns wrong.

    painted: the change is not added to what it covers, it replaces it, as a patch does.
    fooling_rate is of inputs that the search has not seen, fitted_rate of those it has; control is
    the fooling rate of one random change as large as may be. forwards and backwards: rows asked in
    all, for search, choice and the three rates.
    """

    change: Tensor
    painted: bool
    region: Region
    fooling_rate: Interval
    fitted_rate: Interval
    control: Interval
    forwards: int
    backwards: int

    def apply(self, x: Tensor) -> Tensor:
        """Inputs x (B, ...) with the change, cut to the region (it never leaves the domain)."""
        bounds = reach(self.region, x)
        return _worn(x, self.change, bounds.lower, bounds.upper, self.painted)


def _worn(x: Tensor, change: Tensor, lower: Tensor, upper: Tensor, painted: bool) -> Tensor:
    if painted:
        return torch.where(lower < upper, change, x)
    return torch.clamp(x + change, lower, upper)


def universal(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    epochs: int = 10,
    paint: bool = False,
    step_size: float = 0.2,
    loss_cap: float = 9.0,
    held_out: float = 0.5,
    batch_size: int = 64,
    seed: int = 0,
) -> Universal:
    """The change in an Linf or L2 ball that fools most of x (N, ...) with labels y (N, ...).

    Stochastic projected gradient steps on shuffled batches (Shafahi et al. 2020, algorithm 2), of
    step_size times the radius falling linearly to 0. paint: what is free is replaced instead of
    added to, so that a `patch` looks alike on all inputs (Brown et al. 2017). loss_cap bounds the
    cross-entropy of one sample, so that those long fooled do not drown the others. held_out: the
    share of x that only judges. After each epoch the change is measured on all of the other share,
    and the best is kept, of equals the last.

    2 forwards and 1 backward a row and epoch. It depends on the batch size and the order of x.
    Raises ModelError, ThreatError or DataError for what cannot be attacked so.
    """
    if not allowed("gradients", model, threat):
        raise ModelError(
            f"a universal change needs gradients; the model gives {model.access} and the threat's "
            f"access is {threat.access}"
        )
    region = threat.within(model.domain).region
    if epochs < 1 or batch_size < 1 or step_size <= 0:
        raise DataError(
            f"epochs, batch_size and step_size are {epochs}, {batch_size} and {step_size}; give "
            "more than 0"
        )
    judging = round(held_out * len(x))
    if len(x) != len(y) or not 0 < judging < len(x):
        raise DataError(
            f"x has {len(x)} samples, y {len(y)}, and {held_out:g} of them are held out; give as "
            "many labels as inputs, and at least one sample on either side"
        )
    generator = torch.Generator().manual_seed(seed)
    with model.held():
        search = _Search(model, x.detach(), y, threat, region, batch_size, paint)
        rows = torch.randperm(len(x), generator=generator).to(x.device)
        judges, fitted = rows[:judging], rows[judging:]
        right = ~search.hits(rows, None)
        right_judges, right_fitted = judges[right[:judging]], fitted[right[judging:]]
        change = best = search.start
        most, step, steps = -1, 0, epochs * -(-len(fitted) // batch_size)
        for _ in range(epochs):
            order = fitted[torch.randperm(len(fitted), generator=generator).to(x.device)]
            for part in torch.split(order, batch_size):
                ascent = search.ascent(part, change, loss_cap)
                change = search.nearest(change + step_size * (1 - step / steps) * ascent)
                step += 1
            fooled = int(search.hits(right_fitted, change).sum())
            if fooled >= most:
                most, best = fooled, change
        noise = torch.randn(x.shape[1:], generator=generator).to(x)
        noise = search.nearest(search.start + search.steepest(noise))

        def rate(part: Tensor, change: Tensor) -> Interval:
            return wilson(int(search.hits(part, change).sum()), len(part))

        return Universal(
            change=best,
            painted=paint,
            region=region,
            fooling_rate=rate(right_judges, best),
            fitted_rate=wilson(most, len(right_fitted)),
            control=rate(right_judges, noise),
            forwards=search.forwards,
            backwards=search.backwards,
        )


class _Search:
    """The samples, and every question to the model about them, counted."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        region: Region,
        batch: int,
        paint: bool,
    ) -> None:
        self.model, self.region, self.batch, self.paint = model, region, batch, paint
        self.forwards = self.backwards = 0
        lower, upper, eps, norm = reach(region, x)
        if norm not in ("linf", "l2") or not bool(eps.isfinite().all()):
            raise ThreatError(
                f"a universal change needs a finite Linf or L2 radius, the region is "
                f"{threat.region.describe()}"
            )
        if not bool((eps == eps[0]).all()):
            raise ThreatError("one change for all needs one radius; it differs between samples")
        zero = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.samples = Problem(
            x=x,
            y=y,
            key=zero,
            lane=zero,
            target=zero - 1,
            eps=eps,
            lower=lower,
            upper=upper,
            norm=norm,
            goal=threat.goal,
            seed=0,
        )
        # Adding a change to x rounds it; an L2 length can grow by so much.
        rounding = 2**-24 * math.sqrt(x[0].numel()) * float(x.abs().max() + eps[0])
        self.eps = eps[0] if norm == "linf" else (eps[0] * (1 - 1e-6) - rounding).clamp_min(0)
        # Where no sample can move, a change would spend length on nothing.
        self.free = (lower < upper).any(0)
        self.lower, self.upper = lower.amin(0), upper.amax(0)
        self.start = torch.zeros_like(x[0])
        if paint:
            alike = (lower == self.lower) & (upper == self.upper) | ~self.free
            if norm != "linf" or not bool(alike.all()):
                raise ThreatError(
                    f"the region is {threat.region.describe()}; to paint, give a region in which "
                    "the same features of all inputs are free to take any value, such as a patch"
                )
            self.start = torch.where(self.free, (self.lower + self.upper) / 2, 0.0)

    def hits(self, rows: Tensor, change: Tensor | None) -> Tensor:
        """Whether each of the rows reaches the goal with the change, None for none."""
        parts = torch.split(rows, self.batch)
        return torch.cat([self._hit(self.samples.take(part), change) for part in parts])

    def _hit(self, problem: Problem, change: Tensor | None) -> Tensor:
        if not len(problem):
            return problem.lane.bool()
        points = problem.x if change is None else self._worn(problem, change)
        self.forwards += len(points)
        scores, goal = self.model.scores(points), problem.goal
        if change is None:
            check_goal(goal, scores, problem.y)
        hit = goal.hit(goal.decide(scores), problem.y) & torch.isfinite(scores).all(1)
        inside = self.region.contains(problem.x.cpu().numpy(), points.cpu().numpy())
        return hit & torch.from_numpy(inside).to(hit.device)

    def _worn(self, problem: Problem, change: Tensor) -> Tensor:
        return _worn(problem.x, change, problem.lower, problem.upper, self.paint)

    def ascent(self, rows: Tensor, change: Tensor, cap: float) -> Tensor:
        """The step of length eps that raises the rows' mean loss fastest."""
        problem = self.samples.take(rows)
        points = self._worn(problem, change)
        self.forwards, self.backwards = self.forwards + len(rows), self.backwards + len(rows)

        def capped(scores: Tensor) -> Tensor:
            return loss("ce", problem, scores).clamp_max(cap)

        gradient = self.model.gradient(points, capped).gradient
        # A feature at its bound does not follow the change any further.
        if not self.paint:
            gradient = torch.where(points == problem.x + change, gradient, 0.0)
        return self.steepest(gradient.mean(0))

    def steepest(self, gradient: Tensor) -> Tensor:
        """The change of length eps along which a linear loss rises fastest."""
        gradient = gradient * self.free
        if self.samples.norm == "linf":
            return self.eps * gradient.sign()
        return self.eps * gradient / length(gradient[None], "l2").clamp_min(1e-12)

    def nearest(self, change: Tensor) -> Tensor:
        """The change brought into the ball, or the paint into the domain."""
        if self.paint:
            return torch.where(self.free, change.clamp(self.lower, self.upper), 0.0)
        if self.samples.norm == "linf":
            return change.clamp(-self.eps, self.eps)
        far = length(change[None], "l2").clamp_min(1e-12)
        return change * (self.eps / far).clamp_max(1.0)
