"""Any ensemble of trees as plain arrays: what all readers make, and all proofs rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree of n nodes, the root first.

    feature (n,): which feature is asked for, -1 for a leaf. cut (n,): single precision; a row whose
    feature is at most the cut goes to `left` (n,), else to `right` (n,). value (n, K): what a leaf
    adds to the scores.
    """

    feature: Array
    cut: Array
    left: Array
    right: Array
    value: Array


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """The boxes of all leaves of a forest, by what each of them asks of one feature.

    tree (L,), value (L, K). Of each of the C demands, leaf after leaf: leaf, feature (C,), and
    after, until (C,): the numbers of the cuts of that feature above the first and not above the
    second of which a value lies; -1 and how many cuts there are where it has no such end.
    """

    tree: Array
    value: Array
    leaf: Array
    feature: Array
    after: Array
    until: Array


@dataclass(frozen=True, kw_only=True)
class Forest:
    """The sum of trees over rows (B, features) in single precision, and a constant (K,).

    What the trees' library compares in double precision or with < is the same on such rows with a
    cut that is rounded down; see `at_most` and `below`.
    """

    trees: tuple[Tree, ...]
    constant: Array
    features: int

    def scores(self, x: Array) -> Array:
        """Scores (B, K), summed in double precision."""
        x = np.asarray(x, np.float32)
        total = np.repeat(self.constant[None].astype(np.float64), len(x), 0)
        for tree in self.trees:
            total += tree.value[leaves(tree, x)]
        return total

    @cached_property
    def cuts(self) -> tuple[Array, ...]:
        """The cuts of each feature, sorted, each once."""
        found: list[list[Array]] = [[] for _ in range(self.features)]
        for tree in self.trees:
            inner = np.flatnonzero(tree.feature >= 0)
            for feature in np.unique(tree.feature[inner]):
                found[feature].append(tree.cut[inner[tree.feature[inner] == feature]])
        return tuple(
            np.unique(np.concatenate(one)) if one else np.empty(0, np.float32) for one in found
        )

    @cached_property
    def leaves(self) -> Leaves:
        """The boxes of all leaves that any row reaches."""
        owner: list[int] = []
        value: list[Array] = []
        demands: list[tuple[int, int, int, int]] = []
        for number, tree in enumerate(self.trees):
            places = _places(tree, self.cuts)
            stack: list[tuple[int, dict[int, tuple[int, int]]]] = [(0, {})]
            while stack:
                node, known = stack.pop()
                feature = int(tree.feature[node])
                if feature < 0:
                    demands += [(len(value), one, *ends) for one, ends in known.items()]
                    owner.append(number)
                    value.append(tree.value[node])
                    continue
                after, until = known.get(feature, (-1, len(self.cuts[feature])))
                cut = int(places[node])
                if cut > after:
                    below = (after, min(until, cut))
                    stack.append((int(tree.left[node]), {**known, feature: below}))
                if cut < until:
                    above = (max(after, cut), until)
                    stack.append((int(tree.right[node]), {**known, feature: above}))
        columns = np.array(demands, np.int64).reshape(-1, 4).T
        return Leaves(
            tree=np.array(owner), value=np.array(value), leaf=columns[0], feature=columns[1],
            after=columns[2], until=columns[3],
        )  # fmt: skip

    @property
    def rounding(self) -> float:
        """By how much a library that sums in single precision may answer otherwise."""
        most = sum(float(np.abs(tree.value).max()) for tree in self.trees)
        most += float(np.abs(self.constant).max())
        return float(np.finfo(np.float32).eps) * (len(self.trees) + 2) * (1 + most)


def leaves(tree: Tree, x: Array) -> Array:
    """The leaf (B,) that each row reaches."""
    node = np.zeros(len(x), np.int64)
    rows = np.arange(len(x))
    while True:
        inner = tree.feature[node] >= 0
        if not inner.any():
            return node
        at = node[inner]
        left = x[rows[inner], tree.feature[at]] <= tree.cut[at]
        node[inner] = np.where(left, tree.left[at], tree.right[at])


def _places(tree: Tree, cuts: Sequence[Array]) -> Array:
    """The number of each node's cut among those of its feature."""
    found = np.zeros(len(tree.feature), np.int64)
    for feature in np.unique(tree.feature[tree.feature >= 0]):
        nodes = tree.feature == feature
        found[nodes] = np.searchsorted(cuts[feature], tree.cut[nodes])
    return found


def at_most(cut: Sequence[float] | Array) -> Array:
    """The single-precision cut for x <= cut in double precision: the largest not above it."""
    wide = np.asarray(cut, np.float64)
    found = wide.astype(np.float32)
    return np.where(found > wide, np.nextafter(found, np.float32(-np.inf)), found)


def below(cut: Sequence[float] | Array) -> Array:
    """The single-precision cut for x < cut: the largest below it."""
    found = at_most(cut)
    return np.where(found < np.asarray(cut), found, np.nextafter(found, np.float32(-np.inf)))
