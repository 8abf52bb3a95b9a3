"""The engine: runs any attack, sees every query, counts, harvests and judges."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import BudgetError, CheckpointError, DataError, ModelError, ThreatError
from ..models import Model, counted, describe
from ..threat import Budget, Threat
from ..threat.tabular import Capability
from ._ask import Asker, Counted
from ._ball import reach
from ._checkpoint import Checkpoint
from ._contract import Attack, Query, Seen, allowed
from ._harvest import Harvest
from ._problem import Problem, sample_keys
from ._result import Ledger, Result, Status

Progress = Callable[[int, int, int], None]
"""Told of samples done, of all samples, and of those fooled."""


def run(
    attack: Attack,
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    batch_size: int = 64,
    compact: bool = True,
    keys: Tensor | None = None,
    known: Ledger | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    progress: Progress | None = None,
) -> Result:
    """Attack samples x (N, ...) with labels y (N, ...) and return what was found for each.

    A pool of batch_size rows is kept full: a sample that is fooled (on a bounded threat), or whose
    attack has ended, leaves, and a waiting one enters. compact=False keeps all rows to the end, for
    timing. keys (N,): an identity for each sample, else its content. known: what was spent on the
    samples before, by somebody who found them to be right; it counts towards the limits and is part
    of the ledger. checkpoint: a file from which the same call goes on after an interruption; it is
    deleted at the end. Raises DataError, ModelError, ThreatError or CheckpointError for what cannot
    be attacked.
    """
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"x has {len(x)} samples and y {len(y)}; give as many labels as inputs")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; give at least 1")
    name = type(attack).__name__
    if not allowed(attack.needs, model, threat):
        raise ModelError(
            f"{name} needs {attack.needs}; the model gives {model.access} and the threat's access "
            f"is {threat.access}; choose an attack for that access"
        )
    with model.held():
        running = _Run(attack, model, x.detach(), y, threat, seed, budget, batch_size, keys, known)
        if running.norm not in attack.norms:
            raise ThreatError(
                f"{name} knows {', '.join(attack.norms)}, the region is "
                f"{threat.region.describe()}; choose an attack for that norm"
            )
        if not attack.minimum_norm and not bool(running.samples.eps.isfinite().all()):
            raise ThreatError(
                f"{name} needs a radius, the region is {threat.region.describe()}; give a finite "
                "one, or choose a minimum-norm attack such as FMN"
            )
        running.compact, running.progress = compact, progress
        if checkpoint is None or isinstance(checkpoint, Checkpoint):
            running.checkpoint = checkpoint
            return running.result()
        with counted(model, checkpoint):
            running.checkpoint = Checkpoint(checkpoint, running.fingerprint)
            result = running.result()
            running.checkpoint.remove()
        return result


# So often an attack begins anew on whoever is fooled by its own draws of a random model alone.
_TRIES = 4


class _Run:
    compact: bool
    progress: Progress | None
    checkpoint: Checkpoint | None

    def __init__(
        self,
        attack: Attack,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        seed: int,
        budget: Budget | None,
        batch_size: int,
        keys: Tensor | None,
        known: Ledger | None,
    ) -> None:
        self.attack, self.model, self.threat, self.batch = attack, model, threat, batch_size
        self.planned = type(attack).plan is not Attack.plan
        self.asker = Asker(model, x, batch_size)
        self.bounded = not attack.refines and (threat.bounded or not attack.minimum_norm)
        reachable = threat.unbounded() if attack.minimum_norm else threat
        lower, upper, eps, self.norm = reach(reachable.within(model.domain).region, x)
        n, device = len(x), x.device
        zero = torch.zeros(n, dtype=torch.long, device=device)
        no = torch.zeros(n, dtype=torch.bool, device=device)
        self.samples = Problem(
            x=x,
            y=y,
            key=(sample_keys(x, y) if keys is None else keys).to(device),
            lane=zero,
            target=zero - 1,
            eps=eps,
            lower=lower,
            upper=upper,
            norm=self.norm,
            goal=threat.goal,
            seed=seed,
            capability=next((one for one in threat.region if isinstance(one, Capability)), None),
        )
        region = threat.within(model.domain).region
        self.harvest = Harvest(
            attack, self.samples, region, threat.norm, bounded=self.bounded,
            confirmed=self._confirmed if self.asker.drawn else None,
        )  # fmt: skip
        budget = budget or Budget()
        queries = [q for q in (threat.queries, budget.forwards) if q is not None]
        self.most_forwards = min(queries, default=None)
        self.most_backwards = budget.backwards
        self.deadline = time.monotonic() + (budget.seconds or np.inf)
        self.told = time.monotonic()

        self.wrong, self.ended, self.unstarted = no, no.clone(), no.clone()
        self.known = known is not None
        self.forwards = zero.clone() if known is None else known.forwards.clone()
        self.backwards = zero.clone() if known is None else known.backwards.clone()
        self.passed = self.begun = zero.sum()
        self.plan = (zero - 1)[:, None].expand(n, attack.lanes).clone()
        self.waiting = self.waiting_lane = zero[:0]
        self.index, self.problem = zero[:0], self.samples.take(slice(0))
        self.going: Tensor | None = None
        self.state: Any = None

    @cached_property
    def fingerprint(self) -> str:
        """Names this run: attack, model, settings, samples and what can be reached from them."""
        digest = blake2b(repr(describe(self.model)).encode(), digest_size=16)
        samples = self.samples
        told = (
            self.attack, samples.goal, samples.seed, self.batch, self.norm, samples.capability
        )  # fmt: skip
        digest.update(repr((*told, self.most_forwards, self.most_backwards)).encode())
        for field in (self.samples.key, self.samples.lower, self.samples.upper, self.samples.eps):
            digest.update(field.cpu().numpy().tobytes())
        return digest.hexdigest()

    def result(self) -> Result:
        try:
            if not self._restored() or not bool(self.begun):
                if not self.known:
                    self._ask_clean()
                self.waiting = (~self.wrong).nonzero()[:, 0]
                self.waiting_lane = torch.zeros_like(self.waiting)
                self.begun = torch.ones_like(self.begun)
            for left in reversed(range(_TRIES)):
                self._attack()
                # A success is what the stored example does, not what was seen on the way to it. A
                # black box is not asked again: the finding query, which was counted, was its word.
                hit = self._hit if self.model.access == "gradients" else None
                lost = self.harvest.check(self.batch, hit, further=self.asker.drawn)
                if not self.asker.drawn or not len(lost):
                    break
                self.ended[lost] = left == 0
                self.waiting, self.waiting_lane = lost, torch.zeros_like(lost)
            return self._judged()
        except (ModelError, BudgetError):
            # What a served model has answered is dear, and the failing query has changed nothing.
            self._keep()
            raise

    def _attack(self) -> None:
        while time.monotonic() < self.deadline:
            # `shape` and `numel` cost a tenth of `len`, and small networks answer quickly.
            if self.waiting.numel():
                self._admit()
            if self.index.numel():
                self._advance()
                self._tell()
            elif not self.waiting.numel():
                break

    def _ask_clean(self) -> None:
        # An interrupted pass goes on behind the parts that were answered.
        for begin in range(int(self.passed) * self.batch, len(self.wrong), self.batch):
            part = slice(begin, begin + self.batch)
            x, y = self.samples.x[part], self.samples.y[part]
            self.wrong[part] = self.asker.judge(self.samples.goal, x, y).hit
            self.forwards[part] += 1
            self.passed = self.passed + 1

    def _admit(self) -> None:
        room = self.batch - len(self.index)
        if not room or not (self.compact or not len(self.index)):
            return
        index, waiting = self.waiting[:room], self.waiting[room:]
        lane, waiting_lane = self.waiting_lane[:room], self.waiting_lane[room:]
        first = lane == 0
        if self.planned and bool(first.any()):
            affordable = ~first | self._affords(index, *self.attack.plan_cost)
            index, lane, first = index[affordable], lane[affordable], first[affordable]
            self._plan(index[first])
        # Only now, since a plan asks the model, which may fail.
        self.waiting, self.waiting_lane = waiting, waiting_lane
        if not len(index):
            return
        fresh = self.samples.take(index)
        fresh.lane.copy_(lane)
        fresh.target.copy_(self.plan[index, lane])
        begun = self.attack.init(fresh)
        if len(self.index):
            begun = type(begun)(*(torch.cat(pair) for pair in zip(self.state, begun, strict=True)))
            fresh, index = self.problem.with_rows(fresh), torch.cat((self.index, index))
        self.problem, self.index, self.state = fresh, index, begun
        self.going = None

    def _affords(self, index: Tensor, forwards: int, backwards: int) -> Tensor:
        enough = torch.ones_like(index, dtype=torch.bool)
        if self.most_forwards is not None:
            enough &= self.forwards[index] + forwards <= self.most_forwards
        if self.most_backwards is not None:
            enough &= self.backwards[index] + backwards <= self.most_backwards
        return enough

    def _plan(self, index: Tensor) -> None:
        if len(index):
            planned = self.attack.plan(self.samples.take(index), Counted(self.asker, self, index))
            if planned is not None:
                self.plan[index, : planned.shape[1]] = planned

    def _advance(self) -> None:
        query = self.attack.query(self.problem, self.state)
        live = self._affordable(query)
        rows = live if live.ndim == 1 else live.any(1)
        asking = int(rows.count_nonzero())
        if asking < self.index.shape[0] and (self.compact or not asking):
            self._release(rows, query)
            return
        seen = self.asker.answer(self.problem, Query(query.points, live, query.objective))
        self._record(live, query, seen)
        self.state = self.attack.step(self.problem, self.state, seen)

    def _affordable(self, query: Query) -> Tensor:
        """The live points that may be asked: sample not done, budget not spent."""
        live = query.live
        if self.bounded:
            if self.going is None:
                self.going = ~self.harvest.found[self.index]
            live = live & (self.going if live.ndim == 1 else self.going[:, None])
        if self.most_forwards is not None:
            left = self.most_forwards - self.forwards[self.index]
            live = live & (left > 0 if live.ndim == 1 else live.cumsum(1) <= left[:, None])
        if self.most_backwards is not None and query.objective is not None:
            live = live & (self.backwards[self.index] < self.most_backwards)
        return live

    def _release(self, rows: Tensor, query: Query) -> None:
        """Let finished rows go; a sample that is not done waits for its next lane."""
        stay, gone = rows.nonzero()[:, 0], (~rows).nonzero()[:, 0]
        index, lane = self.index[gone], self.problem.lane[gone]
        if query.unstarted is not None:
            self.unstarted[index] |= query.unstarted[gone]
        # A query that is still wanted but not affordable means that the budget ended this row.
        wanted = query.live[gone] if query.live.ndim == 1 else query.live[gone].any(1)
        done = self.harvest.found[index] if self.bounded else torch.zeros_like(wanted)
        following = lane + 1
        again = ~done & ~wanted & (following < self.attack.lanes)
        # A plan may know fewer targets than there are lanes.
        planned = self.plan[index, following.clamp_max(self.attack.lanes - 1)] >= 0
        again &= planned | (self.plan[index, 0] < 0)
        self.ended[index] |= ~again & ~wanted
        self.waiting = torch.cat((self.waiting, index[again]))
        self.waiting_lane = torch.cat((self.waiting_lane, following[again]))
        self.index, self.problem, self.going = self.index[stay], self.problem.take(stay), None
        self.state = type(self.state)(*(field[stay] for field in self.state))

    def _record(self, live: Tensor, query: Query, seen: Seen) -> None:
        spent = (live if live.ndim == 1 else live.sum(1)).long()
        self.forwards.index_add_(0, self.index, spent)
        if query.objective is not None:
            self.backwards.index_add_(0, self.index, spent)
        hit = (seen.hit & live).nonzero()
        if not hit.shape[0]:
            return
        row = hit[:, 0]
        where = self.index[row]
        if live.ndim == 1:
            points, number = query.points[row], self.forwards[where]
        else:
            column = hit[:, 1]
            points = query.points[row, column]
            number = self.forwards[where] - spent[row] + live.cumsum(1)[row, column]
        self.harvest.add(where, points, number, alone=live.ndim == 1)
        self.going = None

    def _hit(self, where: Tensor, points: Tensor) -> Tensor:
        return self.asker.judge(self.samples.goal, points, self.samples.y[where]).hit

    def _confirmed(self, where: Tensor, points: Tensor) -> Tensor:
        """Which points (H, ...) of samples (H,) fool by the draws that success is judged by.

        A sample that is let go because of the attack's own draws would not be taken up again. Where
        no forward is left for it, the end tells.
        """
        sure = torch.zeros_like(where, dtype=torch.bool)
        if self.most_forwards is not None:
            sure = self.forwards[where] >= self.most_forwards
        asked = (~sure).nonzero()[:, 0]
        if len(asked):
            sure[asked] = self._hit(where[asked], points[asked])
            self.forwards[where[asked]] += 1
        return sure

    def _tell(self) -> None:
        if self.progress is not None and time.monotonic() - self.told > 0.2:
            self.told = time.monotonic()
            busy = len(self.waiting) + len(self.index)
            n, found = len(self.wrong), int(self.harvest.found.sum())
            self.progress(n - busy, n, found)
        if self.checkpoint is not None and self.checkpoint.due:
            self._keep()

    def _saved(self) -> tuple[tuple[object, tuple[str, ...]], ...]:
        return (self, _SAVED), (self.harvest, ("found", "first", "best", "x_adv"))

    def _keep(self) -> None:
        if self.checkpoint is not None:
            kept = {name: getattr(part, name) for part, names in self._saved() for name in names}
            state = list(self.state) if len(self.index) else []
            run = {**kept, "lane": self.problem.lane, "state": state, "of": self.fingerprint}
            self.checkpoint.save({"run": run})

    def _restored(self) -> bool:
        saved = None if self.checkpoint is None else self.checkpoint.content.get("run")
        if saved is None:
            return False
        if saved["of"] != self.fingerprint:
            raise CheckpointError("the checkpoint belongs to another attack; delete it")
        device = self.wrong.device
        for part, names in self._saved():
            for name in names:
                setattr(part, name, saved[name].to(device))
        self.problem = self.samples.take(self.index)
        lane = saved["lane"].to(device)
        self.problem.lane.copy_(lane)
        self.problem.target.copy_(self.plan[self.index, lane])
        if len(self.index):
            fields = [field.to(device) for field in saved["state"]]
            self.state = type(self.attack.init(self.problem))(*fields)
        return True

    def _judged(self) -> Result:
        harvest = self.harvest
        found, x = harvest.found, self.samples.x
        x_adv = torch.where(self.samples.column(found), harvest.x_adv, x)
        success = found | self.wrong
        ball = next(part for part in self.threat.region if hasattr(part, "distance"))
        distance = ball.distance(x.cpu().numpy(), x_adv.cpu().numpy())
        distance = torch.from_numpy(distance).to(success.device)
        flags = (self.wrong, found, self.unstarted, self.ended)
        return Result(
            x_adv=x_adv,
            success=success,
            distance=torch.where(success, distance, torch.full_like(distance, np.inf)),
            status=tuple(Status.of(*row) for row in zip(*(f.tolist() for f in flags), strict=True)),
            ledger=Ledger(
                forwards=self.forwards, backwards=self.backwards, first_success=harvest.first
            ),
            batch_invariant=self.asker.batch_invariant,
        )


_SAVED = (
    *("wrong", "ended", "unstarted", "forwards", "backwards", "plan", "waiting", "waiting_lane"),
    *("index", "passed", "begun"),
)
