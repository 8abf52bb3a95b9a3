"""Whether an attacker can change a forest's answer at all: a witness, a proof, or neither in time.

The mixed-integer programme is that of Kantchelian, Tygar and Joseph (2016), section 4, asked for
any point that crosses the boundary instead of the nearest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Both, Call, Capability, Compare, Truth, affine, span
from ._axes import Axis, axis_of
from ._forest import Forest, Tree

Array = NDArray[Any]

# Of a linear rule, in its own units: what a solver may miss it by.
_FEASIBLE = 1e-7
# How many points are looked at that break a rule which the programme does not know.
_TRIES = 50


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is known of one row: a witness that fools the forest, a proof that there is none.

    row (F,): the witness. margin: of the witness, or the highest that there can be where that is
    known. seconds: of wall time.
    """

    status: Literal["witness", "proven", "undecided"]
    row: Array | None = None
    margin: float | None = None
    seconds: float = 0.0


class _Reachable(NamedTuple):
    """The leaves of a tree that can be reached: gain (n,), and on which side of ends they lie."""

    gain: Array
    below: dict[tuple[int, int], list[int]]
    above: dict[tuple[int, int], list[int]]


def decide(
    forest: Forest,
    x: Array,
    label: int,
    lower: Array,
    upper: Array,
    *,
    capability: Capability | None = None,
    seconds: float = 2.0,
    fools: Callable[[Array], bool] | None = None,
) -> Decision:
    """Whether a row within lower and upper (F,), and of the capability, is not of the label.

    All in single precision. fools: the model's own word on a witness (F,); without it the forest's
    counts. Relations that are not linear are left out of the programme: what is proven without them
    is proven, and a witness that breaks one is none.
    """
    began = time.monotonic()
    x = np.asarray(x, np.float32).astype(np.float64)
    asked = _Asked(forest, x, label, lower, upper, capability, fools)
    best: Decision | None = None
    for target in range(len(forest.constant)):
        if target == label:
            continue
        left = seconds - (time.monotonic() - began)
        found = asked.towards(target, max(left, 0.0))
        if found.status == "witness":
            best = found
            break
        if best is None or found.status == "undecided":
            best = found
    assert best is not None
    return Decision(
        status=best.status, row=best.row, margin=best.margin, seconds=time.monotonic() - began
    )


@dataclass
class _Programme:
    """Variables and rows of a mixed-integer programme, as they are added."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    cells: list[tuple[int, int, float]] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)

    def variable(self, low: float, high: float, *, whole: bool = False) -> int:
        self.lower.append(low)
        self.upper.append(high)
        self.whole.append(int(whole))
        return len(self.lower) - 1

    def rule(self, factors: dict[int, float], least: float, most: float) -> None:
        row = len(self.least)
        self.cells += [(row, one, factor) for one, factor in factors.items()]
        self.least.append(least)
        self.most.append(most)

    def solved(self, gain: dict[int, float], seconds: float) -> Any:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        rows, columns, values = zip(*self.cells, strict=True)
        shape = (len(self.least), len(self.lower))
        matrix = csr_array((values, (rows, columns)), shape=shape)
        aim = np.zeros(len(self.lower))
        aim[list(gain)] = [-one for one in gain.values()]
        # Any point will do: with so wide a gap the first one ends the search.
        options = {"time_limit": max(seconds, 0.01), "mip_rel_gap": 1e9}
        return milp(
            aim,
            integrality=np.array(self.whole),
            bounds=Bounds(self.lower, self.upper),
            constraints=LinearConstraint(matrix, self.least, self.most),
            options=options,
        )


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
    ) -> None:
        self.forest, self.x, self.label = forest, x, label
        self.capability, self.fools = capability, fools
        features = [None] * forest.features if capability is None else capability.features
        low, high = self._derived(np.array(lower, np.float64), np.array(upper, np.float64))
        found = [
            axis_of(one, float(x[n]), float(low[n]), float(high[n]), cuts)
            for n, (one, cuts) in enumerate(zip(features, forest.cuts(), strict=True))
        ]
        self.axes = [axis for axis, _ in found]
        self.places = [place for _, place in found]
        self.trees = [_reachable(tree, self.axes, self.places) for tree in forest.trees]

    def _derived(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The ranges, with those of derived features from the ranges that they follow from."""
        if self.capability is None:
            return low, high
        index = self.capability.index
        for item in self.capability.order:
            bounds = span(item.tree, lambda name: (low[index[name]], high[index[name]]))
            # It is handed in in single precision, and may be off by a share of `precision`.
            ends = np.array([bounds.low, bounds.high])
            room = 2 * item.precision * np.maximum(np.abs(ends).max(), 1)
            place = index[item.name]
            low[place] = max(low[place], ends[0] - room)
            high[place] = min(high[place], ends[1] + room)
        return low, high

    def towards(self, target: int, seconds: float) -> Decision:
        gains = [value[:, target] - value[:, self.label] for value in (t.gain for t in self.trees)]
        constant = float(self.forest.constant[target] - self.forest.constant[self.label])
        highest = constant + sum(float(gain.max()) for gain in gains)
        slack = self.forest.rounding
        if highest < -slack:
            return Decision(status="proven", margin=highest)
        programme = _Programme()
        ends = {
            (feature, end): programme.variable(0, 1, whole=True)
            for feature, axis in enumerate(self.axes)
            for end in range(len(axis.ends))
        }
        for feature, axis in enumerate(self.axes):
            for end in range(len(axis.ends) - 1):
                programme.rule({ends[feature, end]: 1, ends[feature, end + 1]: -1}, -np.inf, 0)
        gain: dict[int, float] = {}
        for tree, worth in zip(self.trees, gains, strict=True):
            if len(worth) == 1:
                constant += float(worth[0])
                continue
            leaf = [programme.variable(0, 1) for _ in worth]
            gain.update(zip(leaf, worth.tolist(), strict=True))
            programme.rule(dict.fromkeys(leaf, 1.0), 1, 1)
            for split, some in tree.below.items():
                programme.rule({**{leaf[n]: 1.0 for n in some}, ends[split]: -1}, -np.inf, 0)
            for split, some in tree.above.items():
                programme.rule({**{leaf[n]: 1.0 for n in some}, ends[split]: 1}, -np.inf, 1)
        if not gain:
            return self._judged(self.x, constant, slack)
        values = self._capability(programme, ends)
        until = time.monotonic() + seconds
        programme.rule(gain, -slack - constant, np.inf)
        first = len(programme.least) - 1
        decision = Decision(status="proven")
        for tries in range(_TRIES):
            found = programme.solved(gain, until - time.monotonic())
            if found.x is None:
                # Nothing is left: nothing there ever was, or nothing that could be used.
                sure = found.status == 2 and not tries
                return decision if sure else Decision(status="undecided")
            decision = self._witness(found.x, ends, values, target)
            if decision.status == "witness" or time.monotonic() > until:
                return decision
            # Beyond the boundary by what single precision may err, and in another place than this.
            programme.least[first] = slack - constant
            here = {one: 1.0 - 2.0 * (found.x[one] > 0.5) for one in ends.values()}
            programme.rule(here, 1.0 - sum(factor < 0 for factor in here.values()), np.inf)
        return Decision(status="undecided")

    def _judged(self, row: Array, margin: float, slack: float) -> Decision:
        """Nothing can be moved across a cut: the answer is what it is."""
        if margin < -slack:
            return Decision(status="proven", margin=margin)
        return Decision(status="undecided", row=None, margin=margin)

    def _witness(
        self, solution: Array, ends: dict[tuple[int, int], int], values: dict[int, int], target: int
    ) -> Decision:
        row = self.x.copy()
        for feature, axis in enumerate(self.axes):
            below = np.array(
                [solution[ends[feature, n]] > 0.5 for n in range(len(axis.ends))], bool
            )
            low, high = axis.part(below)
            wanted = solution[values[feature]] if feature in values else axis.value
            row[feature] = self._rounded(feature, float(np.clip(wanted, low, high)), low, high)
        if self.capability is not None:
            row = self.capability.derive(row.astype(np.float32))
        row = row.astype(np.float32)
        scores = self.forest.scores(row[None])[0]
        margin = float(scores[target] - scores[self.label])
        fooled = margin > 0 if self.fools is None else self.fools(row)
        allowed = self.capability is None or bool(
            self.capability.contains(self.x[None], row[None])[0]
        )
        if fooled and allowed:
            return Decision(status="witness", row=row, margin=margin)
        return Decision(status="undecided", margin=margin)

    def _rounded(self, feature: int, wanted: float, low: float, high: float) -> float:
        """The value on the feature's grid nearest to what is wanted, within its part."""
        told = None if self.capability is None else self.capability.features[feature]
        step = 0.0 if told is None else told.step or float(told.integer)
        if step and wanted != self.x[feature]:
            wanted = float(np.clip(np.rint(wanted / step) * step, low, high))
        return wanted

    def _capability(
        self, programme: _Programme, ends: dict[tuple[int, int], int]
    ) -> dict[int, int]:
        """Linear rules, and the limits on number and cost; the variables of features' values."""
        asked, values = self.capability, {}
        if asked is None:
            return {}
        for factors, least, most in self._rules():
            row = {}
            for feature, factor in factors.items():
                if feature not in values:
                    values[feature] = self._value(programme, ends, feature)
                row[values[feature]] = factor
            programme.rule(row, least, most)
        for group in asked.choices:
            places = [asked.index[name] for name in group.columns]
            for feature in places:
                values.setdefault(feature, self._value(programme, ends, feature))
            programme.rule({values[feature]: 1.0 for feature in places}, 1, 1)
        if asked.most_changed is None and asked.most_cost is None:
            return values
        changed = self._changed(programme, ends)
        if asked.most_changed is not None:
            programme.rule(dict.fromkeys(changed.values(), 1.0), -np.inf, asked.most_changed)
        if asked.most_cost is not None:
            self._cost(programme, ends, values, changed)
        return values

    def _rules(self) -> Iterator[tuple[dict[int, float], float, float]]:
        """The linear rules, by the places of their features."""
        assert self.capability is not None
        parts = [one.tree for one in self.capability.relations]
        while parts:
            tree: Truth = parts.pop()
            if isinstance(tree, Both):
                parts += tree.parts
            if not isinstance(tree, Compare) or tree.op == "!=" or tree.relative:
                continue
            form = affine(Call("subtract", (tree.left, tree.right)))
            if form is None:
                continue
            factors = {self.capability.index[name]: one for name, one in form[0].items()}
            # Wider by what a solver may miss it by: then a proof is one, and a witness is checked.
            room = _FEASIBLE + tree.absolute
            least = -form[1] - room if tree.op == "==" else -np.inf
            yield factors, least, -form[1] + room

        for item in self.capability.order:
            form = affine(item.tree)
            if form is not None:
                place = self.capability.index[item.name]
                factors = {self.capability.index[name]: -one for name, one in form[0].items()}
                most = max(abs(self.axes[place].low), abs(self.axes[place].high), 1.0)
                room = _FEASIBLE + item.precision * most
                yield {place: 1.0, **factors}, form[1] - room, form[1] + room

    def _is_derived(self, name: str) -> bool:
        assert self.capability is not None
        return any(one.name == name for one in self.capability.derived)

    def _value(self, programme: _Programme, ends: dict[tuple[int, int], int], feature: int) -> int:
        """A variable for what a feature is, tied to the part that it lies in."""
        assert self.capability is not None
        axis, told = self.axes[feature], self.capability.features[feature]
        whole = told.integer and told.step is None and abs(axis.value - round(axis.value)) == 0
        low, high = max(axis.low, -1e9), min(axis.high, 1e9)
        found = programme.variable(low, high, whole=whole)
        for end in range(len(axis.ends)):
            # At most the end where the row lies below it, at least the start behind it elsewhere.
            below, last, first = ends[feature, end], float(axis.ends[end]), float(axis.starts[end])
            programme.rule({found: 1.0, below: high - last}, -np.inf, high)
            programme.rule({found: 1.0, below: first - low}, first, np.inf)
        return found

    def _changed(self, programme: _Programme, ends: dict[tuple[int, int], int]) -> dict[int, int]:
        """A variable for each feature, or group, that must change for the part it lies in."""
        assert self.capability is not None
        groups = {
            self.capability.index[name]: number
            for number, group in enumerate(self.capability.choices)
            for name in group.columns
        }
        shared: dict[int, int] = {}
        found: dict[int, int] = {}
        for feature, axis in enumerate(self.axes):
            if not len(axis.ends) or self._is_derived(self.capability.features[feature].name):
                continue
            number = groups.get(feature)
            if number is not None and number in shared:
                moved = shared[number]
            else:
                moved = programme.variable(0, 1, whole=True)
                found[feature] = moved
                if number is not None:
                    shared[number] = moved
            for end in range(len(axis.ends)):
                if axis.value <= axis.ends[end]:
                    programme.rule({ends[feature, end]: 1.0, moved: 1.0}, 1, np.inf)
                else:
                    programme.rule({ends[feature, end]: 1.0, moved: -1.0}, -np.inf, 0)
        return found

    def _cost(
        self,
        programme: _Programme,
        ends: dict[tuple[int, int], int],
        values: dict[int, int],
        changed: dict[int, int],
    ) -> None:
        """The least that the changes cost; groups' own costs are left to the check at the end."""
        assert self.capability is not None
        assert self.capability.most_cost is not None
        total: dict[int, float] = {}
        for feature, told in enumerate(self.capability.features):
            if feature in changed and told.fixed:
                total[changed[feature]] = total.get(changed[feature], 0.0) + told.fixed
            if not told.cost or self._is_derived(told.name):
                continue
            if feature not in values:
                values[feature] = self._value(programme, ends, feature)
            apart = programme.variable(0, np.inf)
            programme.rule({apart: 1.0, values[feature]: -1.0}, -self.x[feature], np.inf)
            programme.rule({apart: 1.0, values[feature]: 1.0}, self.x[feature], np.inf)
            total[apart] = told.cost
        if total:
            programme.rule(total, -np.inf, self.capability.most_cost + _FEASIBLE)


def _reachable(tree: Tree, axes: list[Axis], places: list[dict[float, int]]) -> _Reachable:
    """The leaves between the axes' ends, and the splits that part them."""
    gain: list[Array] = []
    below: dict[tuple[int, int], list[int]] = {}
    above: dict[tuple[int, int], list[int]] = {}
    # A node, and for each feature on the way to it the ends that are known: below, and not below.
    stack: list[tuple[int, dict[int, tuple[int, int]], list[tuple[tuple[int, int], bool]]]]
    stack = [(0, {}, [])]
    while stack:
        node, known, path = stack.pop()
        feature = int(tree.feature[node])
        if feature < 0:
            for split, is_below in path:
                (below if is_below else above).setdefault(split, []).append(len(gain))
            gain.append(tree.value[node])
            continue
        axis = axes[feature]
        end = places[feature][float(tree.cut[node])]
        not_below, is_below_end = known.get(feature, (-1, len(axis.ends)))
        left, right = int(tree.left[node]), int(tree.right[node])
        if end >= is_below_end:
            stack.append((left, known, path))
        elif end <= not_below:
            stack.append((right, known, path))
        else:
            split = (feature, end)
            stack.append((left, {**known, feature: (not_below, end)}, [*path, (split, True)]))
            stack.append((right, {**known, feature: (end, is_below_end)}, [*path, (split, False)]))
    return _Reachable(np.array(gain), below, above)
