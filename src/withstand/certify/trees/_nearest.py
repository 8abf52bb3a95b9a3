"""The least change that fools a single tree, from the boxes of its leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import ModelError
from ...threat.tabular import Capability
from ._axes import Axis, axes_of
from ._cells import reach_of
from ._climb import Climber
from ._forest import Forest
from ._least import Measure, least

Array = NDArray[Any]
# Beyond the least there is: what rounding to single precision may add.
_ABOVE = 1 + 1e-6


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest row (F,) of another class, None where there is none, and its distance.

    exact: no row is nearer, or none there; False where a relation that is not linear, or limits
    together, left a leaf unsure.
    """

    row: Array | None
    distance: float
    exact: bool


def nearest(
    forest: Forest,
    x: Array,
    label: int,
    lower: Array,
    upper: Array,
    *,
    measure: Measure = "linf",
    capability: Capability | None = None,
    seconds: float = 2.0,
) -> Nearest:
    """The nearest row within lower and upper (F,), and of the capability, that is not of the label.

    Every leaf of a tree is a box, so the least change is that to the nearest leaf of another class
    (Kantchelian, Tygar and Joseph 2016, section 3); where the nearest point of a box is not
    allowed, a linear programme over the box tells how much farther it is. measure: l0 and cost
    count as the capability does. Raises ModelError for more than one tree.
    """
    if len(forest.trees) != 1:
        raise ModelError(f"the forest has {len(forest.trees)} trees; give one of a single tree")
    x = np.asarray(x, np.float32).astype(np.float64)
    axes = axes_of(forest.cuts, x, lower, upper, capability)
    climber = Climber(axes, x, lower, upper, capability)
    far = _measure(measure, x, capability)
    best, row, open_bounds = np.inf, None, [np.inf]
    for bound, point, low, high in sorted(_boxes(forest, axes, label, far), key=lambda one: one[0]):
        if bound >= best:
            break
        found = _allowed(forest, climber, point, label)
        reached = np.inf if found is None else far(found)
        if reached > bound * _ABOVE and capability is not None:
            farther, nearer = least(low, high, x, capability, measure, seconds)
            bound = max(bound, farther)
            found = _nearer(
                found, None if nearer is None else _allowed(forest, climber, nearer, label), far
            )
            reached = np.inf if found is None else far(found)
        if reached < best:
            best, row = reached, found
        if reached > bound * _ABOVE:
            open_bounds.append(bound)
    return Nearest(row=row, distance=best, exact=min(open_bounds) * _ABOVE >= best)


def _boxes(
    forest: Forest, axes: list[Axis], label: int, far: Callable[[Array], float]
) -> Iterator[tuple[float, Array, Array, Array]]:
    """The leaves of other classes: how far they are, their nearest point, and their box (F,)."""
    reach = reach_of(forest, axes)
    if not len(reach.tree):
        if int(reach.constant.argmax()) != label:
            ends = np.array([(axis.first[0], axis.last[-1]) for axis in axes]).T
            point = np.array([axis.value for axis in axes])
            yield far(point), point, ends[0], ends[1]
        return
    other = np.flatnonzero((reach.constant + reach.value).argmax(1) != label)
    for leaf in other.tolist():
        low, high = np.zeros(len(axes), int), reach.ends.copy()
        mine = reach.leaf == leaf
        low[reach.feature[mine]], high[reach.feature[mine]] = reach.low[mine], reach.high[mine]
        sides = zip(axes, low.tolist(), high.tolist(), strict=True)
        ends = np.array([(axis.first[a], axis.last[b]) for axis, a, b in sides]).T
        point = np.clip([axis.value for axis in axes], *ends)
        yield far(point), point, ends[0], ends[1]


def _allowed(forest: Forest, climber: Climber, point: Array, label: int) -> Array | None:
    rows, there = climber.allowed(point[None])
    fooled = there[0] and int(forest.scores(rows)[0].argmax()) != label
    return rows[0] if fooled else None


def _nearer(one: Array | None, other: Array | None, far: Callable[[Array], float]) -> Array | None:
    there = [row for row in (one, other) if row is not None]
    return min(there, key=far, default=None)


def _measure(measure: Measure, x: Array, capability: Capability | None) -> Callable[[Array], float]:
    """How far a row (F,) is from x (F,), in single precision as it is handed in."""

    def far(row: Array) -> float:
        there = row.astype(np.float32).astype(np.float64)
        if capability is None or measure in ("linf", "l1"):
            apart = np.abs(there - x)
            if measure == "linf":
                return float(apart.max())
            return float(apart.sum() if measure == "l1" else (apart > 0).sum())
        count = capability.changed if measure == "l0" else capability.cost
        return float(count(x[None], there[None])[0])

    return far
