"""Rows of a table against an ensemble of trees: each is decided, or said not to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._errors import BudgetError, ThreatError
from ..attacks._ball import reach
from ..models import Model
from ..threat import L0, L1, L2, Linf, Region, Targeted, Threat
from ..threat.tabular import Capability, Feature
from ._poll import decide as answers_of
from .trees import Decision, Forest, decide, forest_of, left_out

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Decide each row of an ensemble of trees: a proof or a witness, in so many seconds a row."""

    seconds: float = 2.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise BudgetError(f"seconds is {self.seconds:g}; give more than 0")


class Rows:
    """What is asked of a model's rows x (N, F), float32, with labels y (N,)."""

    def __init__(self, model: Model, x: Array, y: Array, threat: Threat) -> None:
        self.model, self.x, self.y, self.threat = model, x, y, threat
        self.forest: Forest = forest_of(model, x)
        self.capability = _capability(threat.region, x)
        limits = reach(_boxed(threat.within(model.domain).region, x), torch.from_numpy(x))
        self._lower, self._upper = (
            one.flatten(1).double().numpy() for one in (limits.lower, limits.upper)
        )
        self.forwards = 2 * len(x)
        self.answers = answers_of(model, torch.from_numpy(x)).cpu().numpy()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The relations that proofs do without."""
        return () if self.capability is None else left_out(self.capability)

    def decided(self, row: int, seconds: float) -> Decision:
        """What is known of a row (its number) after so many seconds, or little more."""
        own = self.x[row].reshape(-1)
        goal = self.threat.goal
        targets = None
        if isinstance(goal, Targeted):
            targets = [goal.target] if goal.target != self.y[row] else []
        found = decide(
            self.forest, own, int(self.y[row]), self._lower[row], self._upper[row],
            capability=self.capability, seconds=seconds, targets=targets,
            fools=lambda there: self._hit(row, there),
        )  # fmt: skip
        if found.row is not None and not self.fools(row, found.row):
            # A ball that counts columns may not hold all that choices and what is derived allow.
            return Decision(status="undecided", seconds=found.seconds)
        return found

    def fools(self, row: int, found: Array) -> bool:
        """Whether the attacker can make such a row (F,) of that one, and the model falls for it."""
        own = self.x[row : row + 1]
        there = np.asarray(found, np.float32).reshape(own.shape)
        region = self.threat.take([row]).within(self.model.domain).region
        return bool(region.contains(own, there)[0]) and self._hit(row, found)

    def _hit(self, row: int, found: Array) -> bool:
        self.forwards += 1
        there = np.asarray(found, np.float32).reshape(self.x[row : row + 1].shape)
        answer = answers_of(self.model, torch.from_numpy(there)).cpu()
        return bool(self.threat.goal.hit(answer, torch.tensor([self.y[row]]))[0])


def _capability(region: Region, x: Array) -> Capability | None:
    """All that limits changes besides a box; raises what cannot be decided."""
    flat = x.reshape(len(x), -1).shape[1]
    told = [part for part in region if isinstance(part, Capability)]
    counts = [float(np.max(part.eps)) for part in region if isinstance(part, L0)]
    if len(told) > 1 or any(isinstance(part, L1 | L2) for part in region):
        raise ThreatError(
            f"the region is {region.describe()}; method trees is for a box, an Linf or L0 ball, "
            "and one table's limits"
        )
    for part in told:
        part.check(x)
    found = told[0] if told else None
    for most in counts:
        if most < flat:
            if found is None:
                names = (Feature(name=str(place)) for place in range(flat))
                found = Capability(features=tuple(names))
            # A choice, and what is derived, count once or never there: that only adds rows.
            own = np.inf if found.most_changed is None else found.most_changed
            found = replace(found, most_changed=int(min(own, np.floor(most))))
    return found


def _boxed(region: Region, x: Array) -> Region:
    """The region without balls that only count: a box is left, and an Linf ball of any size."""
    kept = [part for part in region if not isinstance(part, L0)]
    if not any(isinstance(part, Linf) for part in kept):
        kept.append(Linf(np.inf))
    return reduce(and_, kept)
