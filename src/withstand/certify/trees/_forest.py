"""Any ensemble of trees as plain arrays: what all readers make, and all proofs rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

    def cuts(self) -> list[Array]:
        """The cuts of each feature, sorted, each once."""
        found: list[list[Array]] = [[] for _ in range(self.features)]
        for tree in self.trees:
            inner = np.flatnonzero(tree.feature >= 0)
            for feature in np.unique(tree.feature[inner]):
                found[feature].append(tree.cut[inner[tree.feature[inner] == feature]])
        return [np.unique(np.concatenate(one)) if one else np.empty(0, np.float32) for one in found]

    @property
    def rounding(self) -> float:
        """By how much a library that sums in single precision may answer otherwise."""
        most = sum(float(np.abs(tree.value).max()) for tree in self.trees)
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


def at_most(cut: Sequence[float] | Array) -> Array:
    """The single-precision cut for x <= cut in double precision: the largest not above it."""
    wide = np.asarray(cut, np.float64)
    found = wide.astype(np.float32)
    return np.where(found > wide, np.nextafter(found, np.float32(-np.inf)), found)


def below(cut: Sequence[float] | Array) -> Array:
    """The single-precision cut for x < cut: the largest below it."""
    found = at_most(cut)
    return np.where(found < np.asarray(cut), found, np.nextafter(found, np.float32(-np.inf)))
