"""What a forest answers in the parts that one row can be moved to: a margin for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._axes import Axis
from ._forest import Forest

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The leaves that are within reach, of trees that have more than one such.

    tree, gain (L,): whose leaf it is, the trees one after the other, and what it adds to the
    margin. Of each of the C demands, leaf after leaf: leaf, feature, low, high (C,): a row in
    this leaf has its feature in the parts from low to high. constant: what all other trees add.
    ends (F,): how many ends each feature has.
    """

    tree: Array
    gain: Array
    leaf: Array
    feature: Array
    low: Array
    high: Array
    constant: float
    ends: Array

    @property
    def highest(self) -> float:
        """No margin is higher, even were each tree free to choose its leaf."""
        if not len(self.gain):
            return self.constant
        return self.constant + float(np.maximum.reduceat(self.gain, _starts(self.tree)).sum())

    def margins(self, parts: Array) -> Array:
        """The margins (B,) of cells (B, F)."""
        there = parts[:, self.feature]
        outside = (there < self.low) | (there > self.high)
        missed = np.add.reduceat(outside, _starts(self.leaf), 1) if len(self.leaf) else outside
        return np.asarray(np.where(missed == 0, self.gain, 0.0).sum(1) + self.constant)

    def there(self, parts: Array) -> NDArray[np.bool_]:
        """The leaves (L,) of a cell (F,), one of each tree."""
        at = parts[self.feature]
        outside = (at < self.low) | (at > self.high)
        return np.asarray(np.bincount(self.leaf, outside, len(self.gain)) == 0)

    def moves(self, parts: Array) -> tuple[Array, Array, Array]:
        """All cells that differ from one (F,) in one feature: feature, part and margin (M,)."""
        there = parts[self.feature]
        outside = (there < self.low) | (there > self.high)
        missed = np.bincount(self.leaf, outside, len(self.gain))
        # A leaf counts where it is within reach already, and where only this feature is in the way.
        counts = (missed[self.leaf] == 0) | ((missed[self.leaf] == 1) & outside)
        gain = np.where(counts, self.gain[self.leaf], 0.0)
        kept = np.where(missed == 0, self.gain, 0.0)
        inside = np.bincount(self.feature, np.where(outside, 0.0, kept[self.leaf]), len(self.ends))
        first = np.concatenate(([0], np.cumsum(self.ends + 2)))
        size = int(first[-1])
        steps = np.bincount(first[self.feature] + self.low, gain, size)
        steps -= np.bincount(first[self.feature] + self.high + 1, gain, size)
        feature = np.repeat(np.arange(len(self.ends)), self.ends + 2)
        part = np.arange(size) - first[feature]
        margin = self.constant + kept.sum() - inside[feature] + np.cumsum(steps)
        real = (part <= self.ends[feature]) & (part != parts[feature])
        return feature[real], part[real], margin[real]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """All leaves that a row can be moved to, with their scores: the same for all targets."""

    tree: Array
    value: Array
    leaf: Array
    feature: Array
    low: Array
    high: Array
    constant: Array
    ends: Array

    def towards(self, target: int, label: int) -> Cells:
        """With what each leaf adds to the target's margin over the label."""
        return Cells(
            tree=self.tree, gain=self.value[:, target] - self.value[:, label], leaf=self.leaf,
            feature=self.feature, low=self.low, high=self.high, ends=self.ends,
            constant=float(self.constant[target] - self.constant[label]),
        )  # fmt: skip


def reach_of(forest: Forest, axes: Sequence[Axis]) -> Reach:
    """The leaves of a forest within the axes of a row."""
    told = forest.leaves
    ends = np.array([axis.ends for axis in axes])
    place = np.concatenate([axis.cut for axis in axes])
    # The first of a feature's cuts is what no cut is before.
    offset = np.concatenate(([0], np.cumsum([len(axis.cut) for axis in axes])))[:-1] + 1
    low = place[offset[told.feature] + told.after] + 1
    high = place[offset[told.feature] + told.until]
    gone = np.bincount(told.leaf, low > high, len(told.tree)) > 0
    left = np.bincount(told.tree[~gone], minlength=len(forest.trees))
    alone = (left == 1)[told.tree] & ~gone
    open_ = ~gone & ~alone
    asks = open_[told.leaf] & ((low > 0) | (high < ends[told.feature]))
    number = np.cumsum(open_) - 1
    return Reach(
        tree=told.tree[open_], value=told.value[open_], leaf=number[told.leaf[asks]],
        feature=told.feature[asks], low=low[asks], high=high[asks], ends=ends,
        constant=forest.constant + told.value[alone].sum(0),
    )  # fmt: skip


def _starts(owner: Array) -> Array:
    """Where each owner's entries begin, of owners one after the other that all have some."""
    return np.flatnonzero(np.diff(owner, prepend=-1))
