"""CAPGD: gradients through the constraints of a table, asked only at rows that can be made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ..threat.tabular import NUMPY, Arithmetic, Capability, excess, value
from ._ball import length, project
from ._contract import Query, Seen
from ._losses import loss
from ._noise import uniform
from ._problem import Problem
from ._repair import repaired, units
from ._tables import TableAttack, widths

_MOMENTUM = 0.75
# Of the width of each feature's range.
_FIRST_STEP = 0.5
_LEAST_STEP = 1e-3


def _wide(one: Any) -> Tensor:
    return torch.as_tensor(one, dtype=torch.float64)


_NAMES = {"power": "pow", "negate": "neg"}
TORCH = Arithmetic(
    functions={name: getattr(torch, _NAMES.get(name, name)) for name in NUMPY.functions},
    where=lambda condition, then, other: torch.where(condition, _wide(then), _wide(other)),
    number=_wide,
)


class _State(NamedTuple):
    latent: Tensor  # the row (B, F) that steps move, not repaired
    previous: Tensor
    asked: Tensor  # the last row that the attacker can make
    worth: Tensor  # the gradient so far, in which changes of little worth are taken back
    best: Tensor  # the latent row of the highest loss
    best_loss: Tensor
    checked_loss: Tensor
    step_size: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class CAPGD(TableAttack):
    """Gradient steps under a table's constraints, after CAPGD (Simonetto et al. 2024).

    Steps are shares of each feature's own range, as in APGD with momentum and halving; relations
    that are broken pull as strongly as the loss. A latent row moves freely, so that whole numbers
    and choices are not stuck; what is asked about is that row repaired (see `Repair`), and the
    gradient there goes through derived columns. Limits on number and cost keep the changes that the
    gradient values most. Each restart begins at a random row. 1 forward + 1 backward a step.
    """

    steps: int = 30
    loss: str = "pma"
    restarts: int = 3
    needs: ClassVar[Access] = "gradients"

    def init(self, problem: Problem) -> _State:
        x = problem.x.flatten(1)
        width = _width(problem)
        drawn = uniform(problem, 1, 0, x.shape[1]) - 0.5
        first = (problem.lane == 0)[:, None]
        start = torch.where(first, x, _within(problem, x + 2 * drawn * width))
        lowest = torch.full_like(problem.eps, -torch.inf)
        return _State(
            latent=start,
            previous=start,
            asked=x,
            worth=torch.zeros_like(x),
            best=start,
            best_loss=lowest,
            checked_loss=lowest,
            step_size=torch.full_like(problem.eps, _FIRST_STEP),
            step=torch.zeros_like(problem.lane),
        )

    def query(self, problem: Problem, state: _State) -> Query:
        points = self._possible(problem, state).reshape(problem.x.shape)
        return Query(points, state.step <= self.steps, partial(loss, self.loss, problem))

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        assert seen.loss is not None
        asked, width = seen.points.flatten(1), _width(problem)
        gradient = seen.gradient.flatten(1).nan_to_num(0.0, 0.0, 0.0)
        if problem.capability is not None:
            gradient = _through(problem.capability, asked, gradient)
        better = seen.loss > state.best_loss
        best = torch.where(better[:, None], state.latent, state.best)
        best_loss = torch.maximum(seen.loss, state.best_loss)

        due = (state.step % max(2, self.steps // 6) == 0) & (state.step > 0)
        halve = due & (best_loss <= state.checked_loss)
        latent = torch.where(halve[:, None], best, state.latent)
        previous = torch.where(halve[:, None], best, state.previous)
        step_size = torch.where(halve, state.step_size / 2, state.step_size)
        step_size = step_size.clamp_min(_LEAST_STEP)

        scaled = gradient * width
        way = _steepest(problem, scaled)
        if problem.capability is not None:
            way = way + _pull(problem.capability, latent, width)
        ahead = _within(problem, latent + step_size[:, None] * width * way.clamp(-1, 1))
        glide = latent + _MOMENTUM * (ahead - latent) + (1 - _MOMENTUM) * (latent - previous)
        glide = torch.where((state.step > 0)[:, None], _within(problem, glide), ahead)
        return _State(
            latent=glide,
            previous=latent,
            asked=asked,
            worth=_MOMENTUM * state.worth + (1 - _MOMENTUM) * gradient,
            best=best,
            best_loss=best_loss,
            checked_loss=torch.where(due, best_loss, state.checked_loss),
            step_size=step_size,
            step=state.step + 1,
        )

    def _possible(self, problem: Problem, state: _State) -> Tensor:
        """The latent row as the attacker can make it, else the last one that he could."""
        x = problem.x.flatten(1)
        worth = state.worth * (state.latent - x)
        # Of the first step no gradient is known yet.
        known = (state.worth != 0).any(1, keepdim=True)
        size = (state.latent - x).abs() / _width(problem).clamp_min(1e-12)
        worth = torch.where(known, worth, size)
        rows, feasible = repaired(problem, state.latent[:, None], worth=worth[:, None])
        return torch.where(feasible, rows[:, 0], state.asked)


def _steepest(problem: Problem, scaled: Tensor) -> Tensor:
    """The way (B, F) in shares of the ranges: each feature at once, or by its slope in L2 and L1.

    Of a choice, by how much each column gains on the others: signs would tie most of them.
    """
    if problem.norm in ("l2", "l1"):
        free = (problem.upper > problem.lower).flatten(1).sum(1).clamp_min(1)
        size = length(scaled, "l2").clamp_min(1e-30)
        return scaled * (free.sqrt() / size)[:, None]
    way = scaled.sign()
    for group in problem.capability.choices if problem.capability is not None else ():
        assert problem.capability is not None
        places = [problem.capability.index[name] for name in group.columns]
        lead = scaled[:, places] - scaled[:, places].mean(1, keepdim=True)
        way[:, places] = lead / lead.abs().amax(1, keepdim=True).clamp_min(1e-30)
    return way


def _pull(capability: Capability, rows: Tensor, width: Tensor) -> Tensor:
    """The way (B, F) out of broken relations, each at most 1 in any feature."""
    found = torch.zeros_like(rows)
    wide = rows.detach().double().requires_grad_()
    for relation in capability.relations:
        with torch.enable_grad():
            lack = excess(relation.tree, lambda name: wide[:, capability.index[name]], TORCH)
            if not (isinstance(lack, Tensor) and lack.requires_grad):
                continue
            there = torch.where(lack.isfinite(), lack, 0.0)
            (slope,) = torch.autograd.grad(there.sum(), wide, allow_unused=True)
        if slope is not None:
            slope = slope.nan_to_num(0.0, 0.0, 0.0) * width
            found -= (slope / slope.abs().amax(1, keepdim=True).clamp_min(1e-30)).to(found.dtype)
    return found


def _through(capability: Capability, rows: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (B, F) with that of derived columns led to what they are derived from."""
    if not capability.order:
        return gradient
    wide = rows.detach().double().requires_grad_()
    made: dict[str, Tensor] = {}

    def column(name: str) -> Tensor:
        return made[name] if name in made else wide[:, capability.index[name]]

    places = [capability.index[item.name] for item in capability.order]
    with torch.enable_grad():
        for item in capability.order:
            told = torch.as_tensor(value(item.tree, column, TORCH), dtype=wide.dtype)
            made[item.name] = told.expand(len(wide))
        total = sum(
            (made[item.name] * gradient[:, place].double()).nan_to_num(0.0, 0.0, 0.0).sum()
            for item, place in zip(capability.order, places, strict=True)
        )
        slope = None
        if isinstance(total, Tensor) and total.requires_grad:
            (slope,) = torch.autograd.grad(total, wide, allow_unused=True)
    found = gradient.clone()
    if slope is not None:
        found += slope.nan_to_num(0.0, 0.0, 0.0).to(found.dtype)
    found[:, places] = 0
    return found


def _width(problem: Problem) -> Tensor:
    """As `widths`, and 0 for what is derived."""
    width = widths(problem)
    if problem.capability is not None:
        width = width * (units(problem.capability).to(width.device) < width.shape[1])
    return width


def _within(problem: Problem, rows: Tensor) -> Tensor:
    """The latent rows (B, F) in the box and the ball."""
    return project(problem, rows.reshape(problem.x.shape)).flatten(1)
