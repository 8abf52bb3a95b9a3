"""The smallest change that one attack finds for each sample on a budget of calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attacks import Attack, CarliniWagner, Ledger, run
from ..models import Model
from ..threat import L0, L1, L2, Box, Budget, Linf, Region, Threat
from ._bench_trail import Diary, Trail

Array = NDArray[Any]
Progress = Callable[[int, int, int], None]

BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}

# A search for the radius asks an attack this often if it fails each time, and more if it succeeds.
_SHARES = 10
_ROUNDS = 40


def in_norm(threat: Threat, norm: str, radius: float | Array = np.inf) -> Threat:
    """The threat with its balls replaced by one; without a radius it is unbounded."""
    others = [part for part in threat.region if not isinstance(part, tuple(BALLS.values()))]
    ball: Region = BALLS[norm](radius)
    return replace(threat, region=reduce(and_, others, ball))


def sized(kind: type[Attack], calls: int) -> Attack:
    """An attack whose own length spends about `calls` forwards and backwards on a sample.

    Its field `steps`, `queries` or `draws` is set, for one try where it has several; an attack on a
    fixed radius gets a tenth, since it is asked many times. A single step stays one.
    """
    attack = kind()
    settings = vars(attack)
    name = next((name for name in ("steps", "queries", "draws") if name in settings), None)
    if name is None or getattr(attack, name) == 1:
        return attack
    most = calls // (2 if attack.needs == "gradients" else 1)
    most //= attack.lanes
    if isinstance(attack, CarliniWagner):
        most //= attack.searches
    if not attack.minimum_norm:
        # The last iterate is judged too.
        most = most // _SHARES - (name == "steps")
    return kind(**{name: max(most, 1)})


@dataclass(frozen=True, kw_only=True)
class Search:
    """Samples x (N, ...), all of them answered rightly, and what may be spent on each.

    calls: forwards and backwards together; an attack that needs gradients gets half of them for
    each.
    """

    model: Model
    x: Tensor
    y: Tensor
    keys: Tensor
    threat: Threat
    calls: int
    seed: int
    batch_size: int

    def run(self, attack: Attack, progress: Progress | None = None) -> Trail:
        """The smallest changes of an attack: by itself, or by a search for the radius.

        As in AttackBench (Cina et al. 2025) the radius of each sample doubles until
        the attack succeeds and is bisected between the last failure and the smallest success. It
        begins at a quarter of the way across the domain, because successes are cheap.
        """
        trail = Trail.nothing(len(self.x))
        rows = np.arange(len(self.x))
        if attack.minimum_norm:
            self._round(attack, trail, rows, None, self.seed, progress)
            return trail
        l0 = self.threat.norm == "l0"
        farthest = self._farthest()
        radius = farthest / 4
        low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
        for number in range(_ROUNDS):
            radius = np.floor(radius) if l0 else radius
            rows = np.flatnonzero((radius > 0) & self._affordable(attack, trail))
            if not len(rows):
                break
            self._round(attack, trail, rows, radius[rows], self.seed + number, progress)
            high = trail.distance.copy()
            failed = rows[high[rows] > radius[rows]]
            low[failed] = radius[failed]
            # One failure says little of an attack with chance in it: a bracket that has closed
            # opens again downwards.
            closed = np.isfinite(high) & (high - low <= (1 if l0 else 0.01 * high))
            reopened = np.minimum(0.9 * high, high - 2 * l0)
            low = np.where(closed, np.maximum(reopened, 0), np.minimum(low, high))
            radius = np.where(np.isfinite(high), (low + high) / 2, np.minimum(2 * radius, farthest))
        return trail

    def _budget(self, attack: Attack) -> Budget:
        if attack.needs == "gradients":
            return Budget(forwards=self.calls // 2, backwards=self.calls // 2)
        return Budget(forwards=self.calls)

    def _affordable(self, attack: Attack, trail: Trail) -> Array:
        budget = self._budget(attack)
        left: Array = trail.forwards < budget.forwards
        if budget.backwards is not None:
            left = left & (trail.backwards < budget.backwards)
        return left

    def _round(
        self,
        attack: Attack,
        trail: Trail,
        rows: Array,
        radius: Array | None,
        seed: int,
        progress: Progress | None,
    ) -> None:
        """Run the attack once on some samples and add what it found and spent."""
        index = torch.from_numpy(rows).to(self.x.device)
        reached = np.inf if radius is None else radius
        threat = in_norm(self.threat.take(rows), self.threat.norm, reached)
        diary = Diary(self.keys[rows], self.threat.norm)
        result = run(
            diary.kept_of(attack) if attack.minimum_norm else attack,
            self.model,
            self.x[index],
            self.y[index],
            threat,
            seed=seed,
            budget=self._budget(attack),
            batch_size=self.batch_size,
            keys=self.keys[rows],
            known=Ledger(
                forwards=torch.from_numpy(trail.forwards[rows]).to(self.x.device),
                backwards=torch.from_numpy(trail.backwards[rows]).to(self.x.device),
                first_success=torch.full_like(index, -1),
            ),
            progress=progress,
        )
        found = result.distance.cpu().numpy().astype(np.float64)
        trail.forwards[rows] = result.ledger.forwards.cpu().numpy()
        trail.backwards[rows] = result.ledger.backwards.cpu().numpy()
        spent = trail.forwards[rows] + trail.backwards[rows]
        for place, calls, distance in diary.finds(spent, found):
            trail.add(rows[place], calls, distance)
        hit = np.flatnonzero(np.isfinite(found))
        trail.add(rows[hit], spent[hit], found[hit])

    def _farthest(self) -> Array:
        """How far the end of the domain is from each sample, in the threat's norm (N,)."""
        x = self.x.cpu().numpy().astype(np.float64)
        domain: Box = self.model.domain
        width = np.maximum(x - domain.lower, domain.upper - x)
        width = np.where(np.isfinite(width), width, max(x.max() - x.min(), 1.0))
        return np.asarray(BALLS[self.threat.norm].distance(x, x + width))
