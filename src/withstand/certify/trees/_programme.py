"""A mixed-integer programme, and a bound of its relaxation that no solver is trusted for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

# Of the terms that a bound is summed from: what rounding may leave out.
_ROUNDED = 1e-12


class Relaxed(NamedTuple):
    """A solution of the relaxation (n,), None without one, and a bound that surely holds."""

    solution: Array | None
    bound: float


class Programme:
    """What is sought is the highest gain over variables and rules as they are added."""

    def __init__(self) -> None:
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._whole: list[Array] = []
        self._gain: list[Array] = []
        self._size = 0
        self._rules = 0
        self._cells: list[tuple[Array, Array, Array]] = []
        self._least: list[Array] = []
        self._most: list[Array] = []

    def variables(
        self, count: int, low: float, high: float, *, whole: bool = False, gain: ArrayLike = 0.0
    ) -> Array:
        """New ones between low and high; gain: of each of them, a unit."""
        self._lower.append(np.full(count, low))
        self._upper.append(np.full(count, high))
        self._whole.append(np.full(count, whole, int))
        self._gain.append(np.broadcast_to(np.asarray(gain, np.float64), count))
        self._size += count
        return np.arange(self._size - count, self._size)

    def rule(self, factors: dict[int, float], least: float, most: float) -> None:
        """A sum of variables by their factors lies between least and most."""
        columns, values = np.array(list(factors), np.int64), np.array(list(factors.values()))
        self.rules(np.zeros(len(columns), np.int64), columns, values, [least], [most])

    def rules(
        self, rule: Array, column: Array, factor: Array, least: ArrayLike, most: ArrayLike
    ) -> None:
        """Many of them: entries (M,) with the rule that each belongs to."""
        least = np.atleast_1d(np.asarray(least, np.float64))
        self._cells.append((rule + self._rules, column, factor))
        self._least.append(least)
        self._most.append(np.broadcast_to(np.asarray(most, np.float64), least.shape))
        self._rules += len(least)

    def relaxed(self, seconds: float) -> Relaxed:
        """Solved as if nothing had to be whole.

        The bound is that of the solver's prices (Neumaier and Shcherbina 2004), which holds for any
        prices: an early stop and tolerances make it weaker, never wrong.
        """
        from scipy.optimize import linprog
        from scipy.sparse import vstack

        matrix, least, most = (
            self._matrix(),
            np.concatenate(self._least),
            np.concatenate(self._most),
        )
        even, up, down = least == most, np.isfinite(most), np.isfinite(least)
        up, down = np.flatnonzero(up & ~even), np.flatnonzero(down & ~even)
        upper = vstack([matrix[up], -matrix[down]]).tocsr()
        limit = np.concatenate((most[up], -least[down]))
        same, value = matrix[np.flatnonzero(even)], most[even]
        gain = np.concatenate(self._gain)
        low, high = np.concatenate(self._lower), np.concatenate(self._upper)
        found = linprog(
            -gain, upper, limit, same, value, np.stack((low, high), 1), method="highs",
            options={"time_limit": max(seconds, 0.01)},
        )  # fmt: skip
        if found.x is None or found.ineqlin.marginals is None:
            return Relaxed(None, np.inf)
        price, even_price = np.maximum(-found.ineqlin.marginals, 0.0), -found.eqlin.marginals
        left = gain - upper.T @ price - same.T @ even_price
        terms = np.concatenate(
            (price * limit, even_price * value, np.maximum(left * low, left * high))
        )
        if not np.isfinite(terms).all():
            return Relaxed(found.x, np.inf)
        return Relaxed(found.x, float(terms.sum() + _ROUNDED * np.abs(terms).sum()))

    def solved(self, seconds: float, *, gap: float = 0.0) -> Any:
        """Solved until no more than a share of the gain is missing: scipy's own result.

        Its status is 2 where there is no solution.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        return milp(
            -np.concatenate(self._gain),
            integrality=np.concatenate(self._whole),
            bounds=Bounds(np.concatenate(self._lower), np.concatenate(self._upper)),
            constraints=LinearConstraint(
                self._matrix(), np.concatenate(self._least), np.concatenate(self._most)
            ),
            options={"time_limit": max(seconds, 0.01), "mip_rel_gap": gap},
        )

    def at_least(self, gain: float) -> None:
        """From here on the gain is at least that."""
        every = np.concatenate(self._gain)
        columns = np.flatnonzero(every)
        self.rules(np.zeros(len(columns), np.int64), columns, every[columns], [gain], [np.inf])

    def _matrix(self) -> Any:
        from scipy.sparse import csr_array

        rules, columns, factors = (np.concatenate(side) for side in zip(*self._cells, strict=True))
        return csr_array((factors, (rules, columns)), shape=(self._rules, self._size))
