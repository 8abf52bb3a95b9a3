"""What must hold between features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._bounds import Box, Verdict, verdict_of
from ._evaluate import column_of, excess, holds, value
from ._parse import read_truth, read_value
from ._tree import Truth, Value, names

Array = NDArray[Any]


@dataclass(frozen=True)
class Relation:
    """A rule between columns, such as `paid <= billed`; see `read_truth` for the language."""

    text: str
    tree: Truth = field(repr=False)

    @classmethod
    def read(
        cls, text: str, columns: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None
    ) -> Relation:
        """The rule in a text; raises ThreatError for one that is none, with the fix.

        labels: the names of the categories of columns that have such, for `country == 'DE'`.
        """
        return cls(text, read_truth(text, columns, labels))

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it speaks of."""
        return frozenset(names(self.tree))

    def holds(self, rows: Array, index: Mapping[str, int]) -> NDArray[np.bool_]:
        """Whether each of some rows (..., F) fulfils it; index: where the columns are."""
        found = holds(self.tree, column_of(np.asarray(rows, np.float64), index))
        return np.broadcast_to(np.asarray(found, bool), rows.shape[:-1])

    def excess(self, rows: Array, index: Mapping[str, int]) -> Array:
        """How far each of some rows (..., F) is from fulfilling it, 0 where it does."""
        found = excess(self.tree, column_of(np.asarray(rows, np.float64), index))
        return np.broadcast_to(np.asarray(found), rows.shape[:-1])

    def within(self, box: Box) -> Verdict:
        """Whether it holds everywhere in a box, or may hold somewhere."""
        with np.errstate(all="ignore"):
            return verdict_of(self.tree, box)


@dataclass(frozen=True)
class Derived:
    """A column that follows from others, such as `amount / max(usual, 1)`: recomputed, not changed.

    A row fulfils it to within a share of `precision`, that of single precision and a few steps.
    """

    name: str
    text: str
    tree: Value = field(repr=False)
    precision: float = 1e-5

    @classmethod
    def read(
        cls,
        name: str,
        text: str,
        columns: Sequence[str],
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> Derived:
        """The value in a text; raises ThreatError for one that is none, with the fix."""
        return cls(name, text, read_value(text, columns, labels))

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it follows from."""
        return frozenset(names(self.tree))

    def value(self, rows: Array, index: Mapping[str, int]) -> Array:
        """What it is in each of some rows (..., F)."""
        found = value(self.tree, column_of(np.asarray(rows, np.float64), index))
        return np.broadcast_to(np.asarray(found), rows.shape[:-1])

    def broken(self, rows: Array, index: Mapping[str, int]) -> NDArray[np.bool_]:
        """Which rows have another value there."""
        wanted, found = self.value(rows, index), rows[..., index[self.name]]
        with np.errstate(all="ignore"):
            near = np.abs(found - wanted) <= self.precision * np.maximum(np.abs(wanted), 1)
        return np.asarray(~near)
