"""The engine: runs any attack, sees every query, counts, harvests and judges."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import DataError, ModelError, ThreatError
from ..models import Model
from ..threat import Threat
from ._ball import box
from ._ball import length as length_of
from ._contract import Attack, Query, Seen
from ._problem import Problem

# With fewer rows the CPU's kernels sum in another order, and signs of small gradients flip.
_FLOOR = 4


class Status(StrEnum):
    """How the attack on one sample ended."""

    FOOLED = "fooled"
    WITHSTOOD = "withstood"
    ALREADY_WRONG = "already wrong"
    BUDGET = "budget spent"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What was spent on each sample (N,), live points only; first_success is -1 without one."""

    forwards: Tensor
    backwards: Tensor
    first_success: Tensor


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an attack found for each sample.

    x_adv (N, ...) is the example where success (N,) holds, and x elsewhere; distance (N,) is in the
    threat's norm, 0 for a sample that is wrong to begin with, infinite where there is no success.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    status: tuple[Status, ...]
    ledger: Ledger


def sample_keys(x: Tensor, y: Tensor) -> Tensor:
    """A key for each sample (N,): the digest of its content, and of its count among its equals."""
    seen: dict[bytes, int] = {}
    keys = []
    for row, label in zip(x.cpu().numpy(), y.cpu().numpy(), strict=True):
        content = row.tobytes() + label.tobytes()
        count = seen.get(content, 0)
        seen[content] = count + 1
        digest = blake2b(content + count.to_bytes(8, "little"), digest_size=8).digest()
        keys.append(int.from_bytes(digest, "little", signed=True))
    return torch.tensor(keys, dtype=torch.int64)


def _padded(points: Tensor) -> Tensor:
    missing = _FLOOR - len(points)
    return (
        torch.cat((points, points[:1].expand(missing, *points.shape[1:])))
        if missing > 0
        else points
    )


def _ask(model: Model, problem: Problem, query: Query) -> Seen:
    n, points = len(query.points), _padded(query.points)
    goal = problem.goal
    if query.objective is not None:
        objective = query.objective
        seen = model.gradient(points, lambda scores: objective(scores[:n]))
        scores = seen.scores[:n]
        hit = goal.hit(goal.decide(scores), problem.y) & torch.isfinite(scores).all(1)
        return Seen(hit, scores, seen.values, seen.gradient[:n])
    if model.access == "labels":
        return Seen(goal.hit(model.labels(points)[:n], problem.y))
    scores = model.scores(points)[:n]
    return Seen(goal.hit(goal.decide(scores), problem.y) & torch.isfinite(scores).all(1), scores)


def run(
    attack: Attack,
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    seed: int = 0,
    batch_size: int = 64,
    compact: bool = True,
) -> Result:
    """Attack samples x (N, ...) with labels y (N, ...) and return what was found for each.

    A pool of batch_size rows is kept full: a sample that is fooled, or whose attack has ended,
    leaves, and a waiting one enters. compact=False keeps all rows to the end, for timing. Restarts
    follow one another. Raises DataError, ModelError or ThreatError for what cannot be attacked.
    """
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"x has {len(x)} samples and y {len(y)}; give as many labels as inputs")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; give at least 1")
    if attack.needs == "gradients" and model.access != "gradients":
        raise ModelError(
            f"{type(attack).__name__} needs gradients, the model gives {model.access}; "
            "choose an attack for that access"
        )
    if not threat.bounded or threat.norm not in ("linf", "l2"):
        raise ThreatError(
            f"the region is {threat.region.describe()}; give a finite Linf or L2 radius"
        )
    with model.held():
        return _Run(attack, model, x.detach(), y, threat, seed, batch_size, compact).result()


class _Run:
    def __init__(
        self,
        attack: Attack,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        seed: int,
        batch_size: int,
        compact: bool,
    ) -> None:
        self.attack, self.model, self.threat, self.batch = attack, model, threat, batch_size
        self.compact = compact
        region = threat.within(model.domain).region
        lower, upper, eps = box(region, x)
        n, device = len(x), x.device
        self.samples = Problem(
            x=x,
            y=y,
            key=sample_keys(x, y).to(device),
            lane=torch.zeros(n, dtype=torch.long, device=device),
            eps=eps,
            lower=lower,
            upper=upper,
            norm=threat.norm,
            goal=threat.goal,
            seed=seed,
        )
        self.limit = threat.queries
        self.found = torch.zeros(n, dtype=torch.bool, device=device)
        self.wrong = torch.zeros_like(self.found)
        self.x_adv = x.clone()
        self.forwards = torch.zeros(n, dtype=torch.long, device=device)
        self.backwards = torch.zeros_like(self.forwards)
        self.first = torch.full_like(self.forwards, -1)

    def result(self) -> Result:
        everything = torch.arange(len(self.found), device=self.found.device)
        for part in _parts(everything, self.batch):
            rows = self.samples.take(part)
            self.wrong[part] = _ask(self.model, rows, Query(rows.x, part >= 0)).hit
            self.forwards[part] += 1
        for lane in range(self.attack.restarts):
            self._wave(everything[~self.wrong & ~self.found], lane)
        return self._judged()

    def _wave(self, waiting: Tensor, lane: int) -> None:
        index = waiting[:0]
        problem = self.samples.take(index)
        state: Any = None
        while True:
            room = self.batch - len(index)
            if room and len(waiting) and (self.compact or not len(index)):
                entering, waiting = waiting[:room], waiting[room:]
                fresh = self.samples.take(entering)
                fresh.lane.fill_(lane)
                begun = self.attack.init(fresh)
                state = begun if state is None else _cat(state, begun)
                problem, index = problem.with_rows(fresh), torch.cat((index, entering))
            if not len(index):
                return
            query = self.attack.query(problem, state)
            live = query.live & ~self.found[index]
            if self.limit is not None:
                live &= self.forwards[index] < self.limit
            leaving = not bool(live.any()) or (self.compact and not bool(live.all()))
            if leaving:
                stay = live.nonzero()[:, 0]
                index, problem = index[stay], problem.take(stay)
                state = type(state)(*(field[stay] for field in state)) if len(stay) else None
                continue
            seen = _ask(self.model, problem, query)
            self._record(index, live, query, seen)
            state = self.attack.step(problem, state, seen)

    def _record(self, index: Tensor, live: Tensor, query: Query, seen: Seen) -> None:
        self.forwards[index] += live
        if query.objective is not None:
            self.backwards[index] += live
        fresh = (seen.hit & live).nonzero()[:, 0]
        if len(fresh):
            where = index[fresh]
            inside = self._inside(where, query.points[fresh])
            where, fresh = where[inside], fresh[inside]
            self.found[where] = True
            self.x_adv[where] = query.points[fresh]
            self.first[where] = self.forwards[where]

    def _inside(self, index: Tensor, points: Tensor) -> Tensor:
        region = self.threat.take(index.cpu().numpy()).within(self.model.domain).region
        x = self.samples.x[index].cpu().numpy()
        return torch.from_numpy(region.contains(x, points.cpu().numpy())).to(index.device)

    def _judged(self) -> Result:
        # A success is what the stored example does, not what was seen on the way to it.
        for part in _parts(self.found.nonzero()[:, 0], self.batch):
            rows = self.samples.take(part)
            self.found[part] = _ask(self.model, rows, Query(self.x_adv[part], part >= 0)).hit
        self.x_adv = torch.where(self.samples.column(self.found), self.x_adv, self.samples.x)
        success = self.found | self.wrong
        distance = length_of(self.x_adv - self.samples.x, self.threat.norm)
        distance = torch.where(success, distance, torch.full_like(distance, np.inf))
        limit = self.limit or np.inf
        return Result(
            x_adv=self.x_adv,
            success=success,
            distance=distance,
            status=tuple(map(_status, self.wrong, self.found, self.forwards >= limit)),
            ledger=Ledger(
                forwards=self.forwards, backwards=self.backwards, first_success=self.first
            ),
        )


def _parts(index: Tensor, size: int) -> list[Tensor]:
    return [index[i : i + size] for i in range(0, len(index), size)]


def _status(wrong: Tensor, found: Tensor, spent: Tensor) -> Status:
    if wrong:
        return Status.ALREADY_WRONG
    if found:
        return Status.FOOLED
    return Status.BUDGET if spent else Status.WITHSTOOD


def _cat(state: Any, other: Any) -> Any:
    return type(state)(*(torch.cat(pair) for pair in zip(state, other, strict=True)))
