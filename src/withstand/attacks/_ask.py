"""Asking the model: in batches at which its kernels agree with each other."""

from __future__ import annotations

from math import isfinite
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..models import Model, Objective
from ..threat import Goal, check_goal
from ._contract import Query, Seen
from ._problem import Problem

_FLOORS = (4, 8, 16, 32)
# Numbers in one call of a black box: a megabyte.
_NUMBERS = 262_144
_known: WeakKeyDictionary[Model, dict[tuple[int, ...], int | None]] = WeakKeyDictionary()


def batch_floor(model: Model, x: Tensor, batch: int) -> int | None:
    """The smallest batch from which on a row's answer does not depend on the other rows.

    In smaller batches kernels may sum in another order, and signs of small gradients flip. None if
    there is no such batch: kernels for rows of odd lengths may depend on a row's place. Found by
    asking a few hundred rows once for each model and shape; 1 for a black box, whose queries are
    dear.
    """
    if model.access != "gradients":
        return 1
    known = _known.setdefault(model, {})
    key = (*x.shape[1:], batch, torch.get_num_threads())
    if key not in known:
        known[key] = next((n for n in _FLOORS if _agrees(model, x, n, batch)), None)
    return known[key]


def _agrees(model: Model, x: Tensor, floor: int, batch: int) -> bool:
    size = max(batch, 2 * floor + 3)
    rows = x[torch.arange(size, device=x.device) % len(x)]
    whole = _answer(model, rows)
    place = torch.arange(size, device=x.device)
    for part in (place[:floor], place[1 : floor + 2], place.roll(1)[: 2 * floor + 3].flip(0)):
        if not all(map(torch.equal, _answer(model, rows[part]), [a[part] for a in whole])):
            return False
    return True


def _answer(model: Model, rows: Tensor) -> list[Tensor]:
    seen = model.gradient(rows, lambda scores: scores.square().sum(1))
    return [seen.scores, seen.gradient]


def _at_once(model: object) -> int:
    """How many rows a served model answers at a time, in several requests; 0 for others."""
    while model is not None:
        if hasattr(model, "at_once"):
            return int(model.at_once)
        model = getattr(model, "model", None)
    return 0


def _drawn(model: object) -> bool:
    """Whether a model's gradients come from other draws of its randomness than its answers."""
    while model is not None:
        if hasattr(model, "draws"):
            return True
        model = getattr(model, "model", None)
    return False


class Asker:
    """The model, asked in batches of `floor` to `batch` rows."""

    def __init__(self, model: Model, x: Tensor, batch: int) -> None:
        self.model, self.batch = model, batch
        # Each call of a black box has its price, and its answers do not depend on the others.
        few = 0 if model.access == "gradients" else _NUMBERS // max(x[0].numel(), 1)
        self.part = max(batch, few, _at_once(model))
        floor = batch_floor(model, x, batch)
        self.drawn = model.access == "gradients" and _drawn(model)
        self.batch_invariant = floor is not None
        self.floor = floor or _FLOORS[0]
        self._checked = False

    def _padded(self, points: Tensor) -> Tensor:
        missing = self.floor - len(points)
        if missing <= 0:
            return points
        return torch.cat((points, points[:1].expand(missing, *points.shape[1:])))

    def answer(self, problem: Problem, query: Query) -> Seen:
        """What the model says at the points; those of many a row only where they are live."""
        if query.objective is not None:
            return self._graded(problem, query.points, query.objective)
        if query.live.ndim == 1:
            return self.judge(problem.goal, query.points, problem.y)
        row, column = query.live.nonzero(as_tuple=True)
        # Part by part, so that what is gathered is still in the processor's cache when it is asked.
        places = (torch.split(at, self.part) for at in (row, column))
        parts = [
            self.judge(problem.goal, query.points[r, c], problem.y[r])
            for r, c in zip(*places, strict=True)
        ]
        hit = torch.zeros_like(query.live)
        hit[row, column] = torch.cat([part.hit for part in parts])
        if parts[0].scores is None:
            return Seen(query.points, hit)
        flat = torch.cat([part.scores for part in parts if part.scores is not None])
        scores = flat.new_zeros(*query.live.shape, flat.shape[1])
        scores[row, column] = flat
        return Seen(query.points, hit, scores)

    def judge(self, goal: Goal, points: Tensor, y: Tensor) -> Seen:
        """What the model says at points (n, ...) of samples with labels y (n, ...)."""
        n, padded = len(points), self._padded(points)
        if self.model.access == "labels":
            labels = self.model.labels(padded)[:n]
            self._check(goal, labels, y)
            return Seen(points, goal.hit(labels, y))
        scores = self.model.scores(padded)[:n]
        return Seen(points, self._hit(goal, scores, y), scores)

    def _graded(self, problem: Problem, points: Tensor, objective: Objective) -> Seen:
        n = points.shape[0]
        if n >= self.floor:
            scores, values, gradient = self.model.gradient(points, objective)
        else:
            padded = self.model.gradient(self._padded(points), lambda scores: objective(scores[:n]))
            scores, values, gradient = padded.scores[:n], padded.values, padded.gradient[:n]
        hit = self._hit(problem.goal, scores, problem.y)
        return Seen(points, hit, scores, values, gradient)

    def _hit(self, goal: Goal, scores: Tensor, y: Tensor) -> Tensor:
        self._check(goal, scores, y)
        hit = goal.hit(goal.decide(scores), y)
        # A model that answers with NaN has crashed; nobody was fooled. One sum tells mostly.
        return hit if isfinite(scores.sum().item()) else hit & scores.isfinite().all(1)

    def _check(self, goal: Goal, answer: Tensor, y: Tensor) -> None:
        if not self._checked:
            check_goal(goal, answer, y)
            self._checked = True

    def scores(self, problem: Problem) -> Tensor:
        """Scores (B, K) at x."""
        return self.model.scores(self._padded(problem.x))[: len(problem)]

    def jacobian(self, problem: Problem, outputs: Tensor) -> Tensor:
        """Gradients (B, J, ...) at x of chosen outputs (B, J)."""
        _, gradients = self.model.jacobian(self._padded(problem.x), self._padded(outputs))
        return gradients[: len(problem)]


class Spent(Protocol):
    """What samples (N,) have cost so far."""

    forwards: Tensor
    backwards: Tensor


class Counted:
    """The model as a plan asks it about the samples at `index`: what it costs is theirs."""

    def __init__(self, asker: Asker, spent: Spent, index: Tensor) -> None:
        self.asker, self.spent, self.index = asker, spent, index

    def scores(self, problem: Problem) -> Tensor:
        """Scores (B, K) at x; 1 forward."""
        self.spent.forwards[self.index] += 1
        return self.asker.scores(problem)

    def jacobian(self, problem: Problem, outputs: Tensor) -> Tensor:
        """Gradients (B, J, ...) at x of chosen outputs (B, J); 1 forward, J backwards."""
        self.spent.forwards[self.index] += 1
        self.spent.backwards[self.index] += outputs.shape[1]
        return self.asker.jacobian(problem, outputs)
