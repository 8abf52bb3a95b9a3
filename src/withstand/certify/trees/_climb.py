"""The search for a witness from cell to cell: each step is exact, and asks no model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...attacks._repair import Repair
from ...threat.tabular import Capability
from ._axes import Axis
from ._cells import Cells

Array = NDArray[Any]

# How many of the best steps are looked at whether the attacker can make them.
_BEST = 32
_SMALL = 1e-9


class Climber:
    """Rows that the attacker can make of a row x (F,), each better than the one before."""

    def __init__(
        self,
        axes: Sequence[Axis],
        x: Array,
        lower: Array,
        upper: Array,
        capability: Capability | None,
    ) -> None:
        self.axes, self.x, self.lower, self.upper = axes, x, lower, upper
        self.capability = capability
        self._repair = None if capability is None else Repair(capability)
        self._parted = [n for n, axis in enumerate(axes) if axis.ends]

    def parts(self, rows: Array) -> Array:
        """The cells (B, F) of rows (B, F)."""
        found = np.zeros(rows.shape, np.int64)
        for feature in self._parted:
            found[:, feature] = self.axes[feature].part(rows[:, feature])
        return found

    def allowed(self, rows: Array) -> tuple[Array, Array]:
        """The rows (B, F) in single precision, repaired if need be, and which are possible."""
        if self.capability is None or self._repair is None:
            return rows.astype(np.float32), np.ones(len(rows), bool)
        x = np.repeat(self.x[None], len(rows), 0)
        rows = self.capability.derive(rows.astype(np.float32)).astype(np.float32)
        there = self.capability.contains(x, rows)
        wrong = np.flatnonzero(~there)
        if len(wrong):
            ends = self.lower[None], self.upper[None]
            rows[wrong] = self._repair(self.x[None], rows[wrong][None], *ends)[0]
            there[wrong] = self.capability.contains(x[wrong], rows[wrong])
        return rows, there

    def climb(
        self,
        cells: Cells,
        row: Array,
        *,
        enough: Callable[[Array], bool],
        above: float,
        until: float,
    ) -> Array | None:
        """The first row (F,) that is `enough`, of those with a margin above one.

        row (F,): an allowed one to begin with. until: of the monotonic clock.
        """
        parts = self.parts(row[None])[0]
        margin = float(cells.margins(parts[None])[0])
        while time.monotonic() < until:
            if margin > above and enough(row):
                return row
            rows, there = self._steps(cells, row, parts, margin)
            if not len(rows):
                return None
            cells_there = self.parts(rows)
            margins = np.where(there, cells.margins(cells_there), -np.inf)
            best = int(margins.argmax())
            if not margins[best] > margin + _SMALL:
                return None
            row, parts, margin = rows[best], cells_there[best], float(margins[best])
        return None

    def _steps(self, cells: Cells, row: Array, parts: Array, margin: float) -> tuple[Array, Array]:
        """The rows one step away that promise most, and which of them are possible."""
        feature, part, gain = cells.moves(parts)
        best = np.flatnonzero(gain > margin + _SMALL)
        count = 1 if self.capability is None else _BEST
        best = best[np.argsort(-gain[best], kind="stable")[:count]]
        rows = np.repeat(row[None].astype(np.float64), len(best), 0)
        for place, one in enumerate(best.tolist()):
            rows[place, feature[one]] = self.axes[feature[one]].nearest(part[one])
        rows = np.concatenate((rows, *self._choices(row)))
        if not len(rows):
            return rows, np.zeros(0, bool)
        return self.allowed(rows)

    def _choices(self, row: Array) -> list[Array]:
        """Every other choice of each group, as rows (C, F)."""
        found = []
        for group in () if self.capability is None else self.capability.choices:
            assert self.capability is not None
            places = [self.capability.index[name] for name in group.columns]
            rows = np.repeat(row[None].astype(np.float64), len(places), 0)
            rows[:, places] = np.eye(len(places))
            found.append(rows)
        return found
