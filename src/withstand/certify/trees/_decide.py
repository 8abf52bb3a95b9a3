"""Whether an attacker can change a forest's answer: a witness, a proof, or neither in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._errors import ThreatError
from ...threat.tabular import Capability
from ._axes import Axis, axes_of
from ._cells import Cells, reach_of
from ._climb import Climber
from ._forest import Forest
from ._model import Model

Array = NDArray[Any]

# How many points are looked at that break a rule which the programme does not know.
_TRIES = 50
# Of the gain: with so wide a gap the first solution ends the search.
_ANY = 1e9


By = Literal["leaves", "climb", "relaxation", "programme"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is known of one row: a witness that fools the forest, a proof that there is none.

    row (F,): the witness. margin: of the witness, or a bound that none exceeds where that is
    known. by: what decided it, in the order of `decide`. seconds: of wall time.
    """

    status: Literal["witness", "proven", "undecided"]
    row: Array | None = None
    margin: float | None = None
    by: By | None = None
    seconds: float = 0.0


_UNDECIDED = Decision(status="undecided")


def decide(
    forest: Forest,
    x: Array,
    label: int,
    lower: Array,
    upper: Array,
    *,
    capability: Capability | None = None,
    targets: Sequence[int] | None = None,
    seconds: float = 2.0,
    fools: Callable[[Array], bool] | None = None,
) -> Decision:
    """Whether a row within lower and upper (F,), and of the capability, is not of the label.

    All in single precision. targets: the classes that it may then be of; all others if not given.
    fools: the model's own word on a witness (F,), the same for rows in the same leaves; without it
    the forest's counts. Relations that are not linear are left out of the proof: what is proven
    without them is proven, and a witness that breaks one is none. In turn, as long as it takes: the
    sum of each tree's best leaf; a climb from cell to cell; the relaxed programme, by its bound or
    a climb from its solution; the programme itself. Raises ThreatError for a row that is outside.
    """
    began = time.monotonic()
    asked = _Asked(forest, x, label, lower, upper, capability, fools, began + seconds)
    if targets is None:
        targets = [one for one in range(len(forest.constant)) if one != label]
    return replace(asked.decided(targets), seconds=time.monotonic() - began)


class _Asked:
    def __init__(
        self,
        forest: Forest,
        x: Array,
        label: int,
        lower: Array,
        upper: Array,
        capability: Capability | None,
        fools: Callable[[Array], bool] | None,
        until: float,
    ) -> None:
        self.forest, self.label, self.capability, self.until = forest, label, capability, until
        self.x = np.asarray(x, np.float32).astype(np.float64)
        self.axes = axes_of(forest.cuts, self.x, lower, upper, capability)
        _inside(self.axes, capability)
        self.climber = Climber(self.axes, self.x, lower, upper, capability)
        self.slack = forest.rounding
        self.fools = self._answers_otherwise if fools is None else fools

    def decided(self, targets: Sequence[int]) -> Decision:
        reach = reach_of(self.forest, self.axes)
        each = [reach.towards(target, self.label) for target in targets]
        highest = [cells.highest for cells in each if cells.highest < -self.slack]
        left = [cells for cells in each if cells.highest >= -self.slack]
        by: By = "leaves"
        for ask in (self._climbed, self._relaxed, self._solved):
            going = []
            for cells in left:
                found = ask(cells) if time.monotonic() < self.until else _UNDECIDED
                if found.status == "witness":
                    return found
                if found.status == "undecided":
                    going.append(cells)
                else:
                    highest.append(self._bound(found, cells))
                    by = found.by or by
            left = going
        if left:
            return _UNDECIDED
        return Decision(status="proven", margin=max(highest, default=None), by=by)

    def _bound(self, found: Decision, cells: Cells) -> float:
        return -self.slack if found.margin is None else min(found.margin, cells.highest)

    def _answers_otherwise(self, row: Array) -> bool:
        return int(self.forest.scores(row[None])[0].argmax()) != self.label

    def _climbed(self, cells: Cells) -> Decision:
        return self._from(cells, self.x.astype(np.float32), "climb")

    def _from(self, cells: Cells, row: Array, by: By) -> Decision:
        """What a climb from an allowed row finds."""
        found = self.climber.climb(
            cells, row, enough=self.fools, above=-self.slack, until=self.until
        )
        if found is None:
            return _UNDECIDED
        margin = float(cells.margins(self.climber.parts(found[None]))[0])
        return Decision(status="witness", row=found, margin=margin, by=by)

    def _relaxed(self, cells: Cells) -> Decision:
        if not len(cells.gain):
            return _UNDECIDED
        model = Model(cells, self.axes, self.x, self.capability)
        relaxed = model.programme.relaxed(self.until - time.monotonic())
        bound = cells.constant + relaxed.bound
        if bound < -self.slack:
            return Decision(status="proven", margin=bound, by="relaxation")
        if relaxed.solution is None:
            return _UNDECIDED
        return self._read(model, relaxed.solution, cells, "relaxation")

    def _solved(self, cells: Cells) -> Decision:
        if not len(cells.gain):
            return _UNDECIDED
        model, sure = Model(cells, self.axes, self.x, self.capability), True
        # At first whatever single precision may take for fooled; then what surely is.
        model.programme.at_least(-self.slack - cells.constant)
        for _ in range(_TRIES):
            found = model.programme.solved(self.until - time.monotonic(), gap=_ANY)
            if found.x is None:
                # Nothing is left: nothing there ever was, or nothing that could be used.
                nothing = found.status == 2 and sure
                return Decision(status="proven", by="programme") if nothing else _UNDECIDED
            decision = self._read(model, found.x, cells, "programme")
            if decision.status == "witness" or time.monotonic() > self.until:
                return decision
            parts, row = model.read(found.x)
            if sure and self._harmless(cells, parts, row):
                model.forbid_leaves(parts)
                continue
            if sure:
                sure = False
                model.programme.at_least(self.slack - cells.constant)
            model.forbid(parts)
        return _UNDECIDED

    def _harmless(self, cells: Cells, parts: Array, row: Array) -> bool:
        """Whether no row in the leaves of a cell (F,) fools the model: all get the same answer."""
        if cells.margins(parts[None])[0] < -self.slack:
            # It was there by the solver's tolerance alone.
            return True
        rows, there = self.climber.allowed(row[None])
        same = bool(there[0]) and bool((self.climber.parts(rows)[0] == parts).all())
        return same and not self.fools(rows[0])

    def _read(self, model: Model, solution: Array, cells: Cells, by: By) -> Decision:
        rows, there = self.climber.allowed(model.read(solution)[1][None])
        return self._from(cells, rows[0], by) if there[0] else _UNDECIDED


def _inside(axes: Sequence[Axis], capability: Capability | None) -> None:
    for place, axis in enumerate(axes):
        low, high = axis.first[0], axis.last[-1]
        if not low <= axis.value <= high:
            name = place if capability is None else capability.features[place].name
            raise ThreatError(
                f"feature {name} is {axis.value:g} before the attack, and the attacker has it "
                f"between {low:g} and {high:g}; leave the row out, or widen the region"
            )
