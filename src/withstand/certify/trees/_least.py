"""How far at least a box of rows is, where linear rules and limits hold in it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Capability
from ._model import FAR, FEASIBLE, rules_of
from ._programme import Programme

Array = NDArray[Any]
Measure = Literal["linf", "l1", "l0", "cost"]


def least(
    low: Array, high: Array, x: Array, capability: Capability, measure: Measure, seconds: float
) -> tuple[float, Array | None]:
    """A bound of the distance of all rows between low and high (F,) from x (F,), and the nearest.

    The bound is infinite where no row is allowed.
    """
    far = np.abs(low) > FAR, np.abs(high) > FAR
    asked = _Least(np.where(far[0], -np.inf, low), np.where(far[1], np.inf, high), x, capability)
    asked.aim(measure)
    found = asked.programme.solved(seconds)
    if found.x is None:
        return np.inf if found.status == 2 else 0.0, None
    # Where nothing must be whole there is no bound but the solution.
    bound = found.mip_dual_bound
    if bound is None:
        bound = found.fun if found.status == 0 else 0.0
    return float(bound) - FEASIBLE, np.clip(asked.row(found.x), low, high)


class _Least:
    def __init__(self, low: Array, high: Array, x: Array, capability: Capability) -> None:
        self.low, self.high, self.x, self.capability = low, high, x, capability
        self.programme = Programme()
        chosen = {capability.index[name] for one in capability.choices for name in one.columns}
        self.values = [
            int(
                self.programme.variables(
                    1, low[n], high[n], whole=n in chosen or (one.integer and one.step is None)
                )[0]
            )
            for n, one in enumerate(capability.features)
        ]
        self.made = {capability.index[one.name] for one in capability.derived}
        self._apart: dict[int, int] = {}
        self._moved: dict[int, int] = {}
        for factors, least_, most, share in rules_of(capability):
            size = sum(abs(factor) * self._size(feature) for feature, factor in factors.items())
            if size < FAR:
                room = FEASIBLE + share * max(size, 1.0)
                row = {self.values[feature]: factor for feature, factor in factors.items()}
                self.programme.rule(row, least_ - room, most + room)
        if capability.most_changed is not None:
            self.programme.rule(self._changed(), -np.inf, capability.most_changed)
        if capability.most_cost is not None:
            self.programme.rule(self._cost(), -np.inf, capability.most_cost + FEASIBLE)

    def aim(self, measure: Measure) -> None:
        """Let the distance be what is to be least."""
        (total,) = self.programme.variables(1, 0, np.inf, gain=-1.0).tolist()
        if measure == "linf":
            for feature in range(len(self.x)):
                self.programme.rule({total: 1.0, self._distance(feature): -1.0}, 0, np.inf)
            return
        if measure == "l1":
            form = {self._distance(feature): 1.0 for feature in range(len(self.x))}
        else:
            form = self._changed() if measure == "l0" else self._cost()
        self.programme.rule({total: 1.0, **{one: -by for one, by in form.items()}}, 0, np.inf)

    def row(self, solution: Array) -> Array:
        """The row (F,) of a solution, on the features' grids."""
        row = np.clip(solution[self.values], self.low, self.high)
        for place, one in enumerate(self.capability.features):
            step = one.step or float(one.integer)
            if step:
                row[place] = np.clip(
                    np.rint(row[place] / step) * step, self.low[place], self.high[place]
                )
        near = np.abs(row - self.x) <= FEASIBLE * np.maximum(np.abs(self.x), 1.0)
        return np.where(near, self.x, row)

    def _size(self, feature: int) -> float:
        return float(max(abs(self.low[feature]), abs(self.high[feature])))

    def _distance(self, feature: int) -> int:
        """A variable for how far a feature is moved."""
        if feature not in self._apart:
            x = float(self.x[feature])
            far = max(abs(self.low[feature] - x), abs(self.high[feature] - x))
            (apart,) = self.programme.variables(1, 0, far).tolist()
            value = self.values[feature]
            self.programme.rule({apart: 1.0, value: -1.0}, -x, np.inf)
            self.programme.rule({apart: 1.0, value: 1.0}, x, np.inf)
            self._apart[feature] = apart
        return self._apart[feature]

    def _unit(self, feature: int) -> int:
        """The number of a feature, or of the group that it is chosen in, from -1 down."""
        name = self.capability.features[feature].name
        groups = [n for n, one in enumerate(self.capability.choices) if name in one.columns]
        return -1 - groups[0] if groups else feature

    def _change(self, feature: int) -> int:
        """A variable that is 1 where a feature, or its group, is moved at all."""
        unit = self._unit(feature)
        if unit not in self._moved:
            (self._moved[unit],) = self.programme.variables(1, 0, 1, whole=True).tolist()
        x = float(self.x[feature])
        far = max(abs(self.low[feature] - x), abs(self.high[feature] - x))
        if 0 < far < FAR:
            self.programme.rule({self._moved[unit]: far, self._distance(feature): -1.0}, 0, np.inf)
        return self._moved[unit]

    def _own(self) -> list[int]:
        return [n for n in range(len(self.x)) if n not in self.made]

    def _changed(self) -> dict[int, float]:
        return {self._change(feature): 1.0 for feature in self._own()}

    def _cost(self) -> dict[int, float]:
        form: dict[int, float] = {}
        for feature in self._own():
            told = self.capability.features[feature]
            if told.cost:
                form[self._distance(feature)] = told.cost
            if told.fixed:
                # Each column's own fixed cost, were it alone in its group.
                (moved,) = self.programme.variables(1, 0, 1, whole=True).tolist()
                x = float(self.x[feature])
                far = max(abs(self.low[feature] - x), abs(self.high[feature] - x))
                if far < FAR:
                    self.programme.rule({moved: far, self._distance(feature): -1.0}, 0, np.inf)
                form[moved] = told.fixed
        for number, group in enumerate(self.capability.choices):
            if group.cost:
                columns = [self.capability.index[name] for name in group.columns]
                for feature in columns:
                    self._change(feature)
                form[self._moved[-1 - number]] = group.cost
        return form
