"""The forest and the attacker as a mixed-integer programme.

That of Kantchelian, Tygar and Joseph (2016), section 4: a variable for each end between two parts
of a feature, 1 where the row lies before it, and a share for each leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Both, Call, Capability, Compare, Truth, affine
from ._axes import Axis
from ._cells import Cells
from ._programme import Programme

Array = NDArray[Any]

# Of a linear rule, in its own units: what a solver may miss it by.
FEASIBLE = 1e-7
# A feature that reaches farther is not tied to the others: a solver would lose the small ones.
FAR = 1e9


class Model:
    """The programme of one row and one target, and how its solutions are read.

    What it leaves out (relations that are not linear, those of features that reach too far) only
    adds rows that there are not: what is proven of it is proven.
    """

    def __init__(
        self, cells: Cells, axes: Sequence[Axis], x: Array, capability: Capability | None
    ) -> None:
        self.cells, self.axes, self.x, self.capability = cells, axes, x, capability
        self.programme = Programme()
        sizes = [axis.ends for axis in axes]
        self._first = np.concatenate(([0], np.cumsum(sizes)))
        self.ends = self.programme.variables(int(self._first[-1]), 0, 1, whole=True)
        self.values: dict[int, int] = {}
        self._chosen: set[int] = set()
        if capability is not None:
            names = [name for one in capability.choices for name in one.columns]
            self._chosen = {capability.index[name] for name in names}
        self._ordered(sizes)
        self._forest()
        if capability is not None:
            self._linear(capability)
            self._limited(capability)

    def read(self, solution: Array) -> tuple[Array, Array]:
        """The cell (F,) of a solution, and a row (F,) in it, on the features' grids."""
        before = solution[self.ends] < 0.5
        parts = np.array(
            [before[self._first[n] : self._first[n + 1]].sum() for n in range(len(self.axes))]
        )
        row = np.array([axis.nearest(part) for axis, part in zip(self.axes, parts, strict=True)])
        for feature, column in self.values.items():
            axis, part = self.axes[feature], parts[feature]
            row[feature] = self._rounded(
                feature, float(solution[column]), axis.first[part], axis.last[part]
            )
        return parts, row

    def forbid(self, parts: Array) -> None:
        """No more solution in this cell."""
        factors = {
            int(self._first[n]) + end: 1.0 if end < part else -1.0
            for n, part in enumerate(parts.tolist())
            for end in range(self.axes[n].ends)
        }
        taken = sum(factor < 0 for factor in factors.values())
        self.programme.rule(factors, 1.0 - taken, np.inf)

    def forbid_leaves(self, parts: Array) -> None:
        """No more solution in the leaves of this cell, all of them together."""
        chosen = self._leaves[self.cells.there(parts)].tolist()
        self.programme.rule(dict.fromkeys(chosen, 1.0), -np.inf, len(chosen) - 1)

    def _rounded(self, feature: int, wanted: float, low: float, high: float) -> float:
        """The value on the feature's grid nearest to what is wanted, within its part."""
        assert self.capability is not None
        told = self.capability.features[feature]
        step = told.step or float(told.integer or feature in self._chosen)
        wanted = float(np.clip(wanted, low, high))
        if abs(wanted - self.x[feature]) <= FEASIBLE * max(abs(wanted), 1):
            return float(self.x[feature])
        if step:
            wanted = float(np.clip(np.rint(wanted / step) * step, low, high))
        return wanted

    def _ordered(self, sizes: list[int]) -> None:
        """What lies before an end lies before all later ones."""
        feature = np.repeat(np.arange(len(sizes)), sizes)
        pairs = np.flatnonzero(np.diff(feature) == 0)
        rule = np.arange(len(pairs))
        self.programme.rules(
            np.concatenate((rule, rule)),
            np.concatenate((pairs, pairs + 1)),
            np.repeat([1.0, -1.0], len(pairs)),
            np.full(len(pairs), -np.inf),
            0.0,
        )

    def _forest(self) -> None:
        """Each tree's shares come to 1, and no leaf has one on the wrong side of an end."""
        cells, add = self.cells, self.programme.rules
        leaves = self._leaves = self.programme.variables(len(cells.gain), 0, 1, gain=cells.gain)
        trees = np.cumsum(np.diff(cells.tree, prepend=-1) > 0) - 1
        add(trees, leaves, np.ones(len(leaves)), np.ones(trees[-1] + 1), 1.0)
        # All leaves of a tree that lie before an end, or behind it, exclude each other: one rule.
        low_end, high_end = cells.low - 1, cells.high
        for end, wrong, most in (
            (np.where(high_end < cells.ends[cells.feature], high_end, -1), 1.0, 0.0),
            (low_end, -1.0, 1.0),
        ):
            some = np.flatnonzero(end >= 0)
            rule, entry, asked = _together(
                cells.tree[cells.leaf[some]], cells.feature[some], end[some], before=wrong > 0
            )
            count = len(asked)
            column = self._first[cells.feature[some[asked]]] + end[some[asked]]
            add(
                np.concatenate((rule, np.arange(count))),
                np.concatenate((leaves[cells.leaf[some[entry]]], column)),
                np.concatenate((np.ones(len(rule)), np.full(count, -wrong))),
                np.full(count, -np.inf),
                most,
            )

    def _spread(self, feature: int, each: Array) -> tuple[dict[int, float], float]:
        """The factors and the constant of a sum that is each[k] (m + 1,) in part k."""
        first = int(self._first[feature])
        steps = each[:-1] - each[1:]
        return {first + end: float(one) for end, one in enumerate(steps)}, float(each[-1])

    def _value(self, feature: int) -> int:
        """A variable for what a feature is, within the part that it lies in."""
        if feature not in self.values:
            assert self.capability is not None
            axis, told = self.axes[feature], self.capability.features[feature]
            whole = (told.integer and told.step is None) or feature in self._chosen
            (found,) = self.programme.variables(
                1, float(axis.first[0]), float(axis.last[-1]), whole=whole
            ).tolist()
            room = FEASIBLE + 1e-12 * max(abs(axis.first[0]), abs(axis.last[-1]))
            for each, least, most in ((axis.first, -room, np.inf), (axis.last, -np.inf, room)):
                factors, constant = self._spread(feature, -each)
                self.programme.rule({found: 1.0, **factors}, least - constant, most - constant)
            self.values[feature] = found
        return self.values[feature]

    def _linear(self, capability: Capability) -> None:
        """Linear relations, what is derived linearly, and choices."""
        for factors, least, most, share in rules_of(capability):
            reach = {
                feature: max(abs(self.axes[feature].first[0]), abs(self.axes[feature].last[-1]))
                for feature in factors
            }
            if max(reach.values(), default=0.0) < FAR:
                size = sum(abs(factor) * reach[one] for one, factor in factors.items())
                # Wider by what a sum may be rounded: what fulfils the rule fulfils this.
                room = FEASIBLE + 1e-12 * size + share * max(size, 1.0)
                row = {self._value(feature): factor for feature, factor in factors.items()}
                self.programme.rule(row, least - room, most + room)

    def _limited(self, capability: Capability) -> None:
        """The limits on the number of changes and on their cost."""
        if capability.most_changed is None and capability.most_cost is None:
            return
        moved = self._moved(capability)
        if capability.most_changed is not None:
            factors = dict.fromkeys(moved.values(), 1.0)
            self.programme.rule(factors, -np.inf, capability.most_changed)
        if capability.most_cost is None:
            return
        total = {
            moved[-1 - number]: group.cost
            for number, group in enumerate(capability.choices)
            if -1 - number in moved and group.cost
        }
        limit = capability.most_cost + FEASIBLE
        made = {capability.index[one.name] for one in capability.derived}
        for feature, told in enumerate(capability.features):
            if feature in made or not (told.cost or told.fixed):
                continue
            axis = self.axes[feature]
            near = axis.nearest(np.arange(axis.ends + 1))
            each = told.cost * np.abs(near - axis.value) + told.fixed * (near != axis.value)
            factors, constant = self._spread(feature, each)
            if feature not in self.values:
                limit -= constant
                for column, factor in factors.items():
                    total[column] = total.get(column, 0.0) + factor
                continue
            (spent,) = self.programme.variables(1, 0, capability.most_cost + FEASIBLE).tolist()
            self.programme.rule(
                {spent: 1.0, **{column: -factor for column, factor in factors.items()}},
                constant, np.inf,
            )  # fmt: skip
            value = self.values[feature]
            for sign in (1.0, -1.0):
                self.programme.rule(
                    {
                        spent: 1.0,
                        value: -sign * told.cost,
                        **({moved[feature]: -told.fixed} if feature in moved else {}),
                    },
                    -sign * told.cost * axis.value,
                    np.inf,
                )
            total[spent] = 1.0
        if total:
            self.programme.rule(total, -np.inf, limit)

    def _moved(self, capability: Capability) -> dict[int, int]:
        """A variable for each feature, or group by its number from -1 down, that must change."""
        groups = {
            capability.index[name]: -1 - number
            for number, group in enumerate(capability.choices)
            for name in group.columns
        }
        made = {capability.index[one.name] for one in capability.derived}
        found: dict[int, int] = {}
        for feature, axis in enumerate(self.axes):
            if feature in made or not (axis.ends or feature in self.values):
                continue
            unit = groups.get(feature, feature)
            if unit not in found:
                (found[unit],) = self.programme.variables(1, 0, 1, whole=True).tolist()
            each = (np.arange(axis.ends + 1) != axis.part(axis.value)).astype(float)
            factors, constant = self._spread(feature, each)
            self.programme.rule(
                {found[unit]: 1.0, **{column: -factor for column, factor in factors.items()}},
                constant, np.inf,
            )  # fmt: skip
            if feature in self.values:
                # Within its part it may move too, for the sake of a rule.
                value, own = self.values[feature], axis.value
                down, up = own - float(axis.first[0]), float(axis.last[-1]) - own
                room = FEASIBLE + 1e-12 * max(abs(own), up, down)
                self.programme.rule({value: 1.0, found[unit]: -up}, -np.inf, own + room)
                self.programme.rule({value: 1.0, found[unit]: down}, own - room, np.inf)
        return found


def left_out(capability: Capability) -> tuple[str, ...]:
    """The relations, all or part of which the programme does without."""
    return tuple(one.text for one in capability.relations if not _is_linear(one.tree))


def _is_linear(tree: Truth) -> bool:
    if isinstance(tree, Both):
        return all(_is_linear(part) for part in tree.parts)
    if not isinstance(tree, Compare) or tree.op == "!=" or tree.relative:
        return False
    return affine(Call("subtract", (tree.left, tree.right))) is not None


def rules_of(capability: Capability) -> Iterator[tuple[dict[int, float], float, float, float]]:
    """The linear rules: factors by feature, ends, and by what share of its size it may be off."""
    index = capability.index
    parts = [one.tree for one in capability.relations]
    while parts:
        tree: Truth = parts.pop()
        if isinstance(tree, Both):
            parts += tree.parts
        if not isinstance(tree, Compare) or not _is_linear(tree):
            continue
        form = affine(Call("subtract", (tree.left, tree.right)))
        if form is not None:
            least = -form[1] - tree.absolute if tree.op == "==" else -np.inf
            yield _placed(form[0], index), least, tree.absolute - form[1], 0.0
    for item in capability.order:
        form = affine(item.tree)
        if form is not None:
            place = index[item.name]
            factors = {one: -factor for one, factor in _placed(form[0], index).items()}
            yield {place: 1.0, **factors}, form[1], form[1], 2 * item.precision
    for group in capability.choices:
        yield {index[name]: 1.0 for name in group.columns}, 1.0, 1.0, 0.0


def _placed(factors: Any, index: Any) -> dict[int, float]:
    return {index[name]: float(factor) for name, factor in factors.items()}


def _together(
    tree: Array, feature: Array, end: Array, *, before: bool
) -> tuple[Array, Array, Array]:
    """For each tree, feature and end once, all entries of that tree and feature on one side of it.

    rule, entry (M,): which belong together; asked (rules,): an entry that has each rule's end.
    """
    side = end if before else -end
    order = np.lexsort((side, feature, tree))
    key = np.stack((tree, feature))[:, order]
    new = np.any(np.diff(key, axis=1, prepend=-1) != 0, 0)
    begin = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    last = np.append(new[1:] | (np.diff(side[order]) != 0), True)[: len(order)]
    asked = np.flatnonzero(last)
    count = asked - begin[asked] + 1
    rule = np.repeat(np.arange(len(asked)), count)
    entry = np.arange(len(rule)) - np.repeat(np.cumsum(count) - count, count) + begin[asked][rule]
    return rule, order[entry], order[asked]
