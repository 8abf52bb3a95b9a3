"""Radii from two samples whose rows do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError
from ...stats import Ends, Interval, enough
from ._largest import largest
from ._result import Calibration, Column, Kind
from ._rows import Rows, rows
from ._shift import moved, ranges, sizes, total
from ._transport import earth_movers, flips, joint

Array = NDArray[Any]

ESTIMAND = (
    "how far the range that holds a feature's central {share:g} % moves between the two "
    "populations, at its further end; and for a norm, the size of a change that moves every "
    "measurably moved feature so far at once"
)


def calibrate_samples(
    first: ArrayLike,
    second: ArrayLike,
    *,
    drift: bool = False,
    coverage: float = 0.9,
    confidence: float = 0.95,
    kinds: Sequence[Kind] | None = None,
    names: Sequence[str] | None = None,
    transport: bool = True,
    seed: int = 0,
) -> Calibration:
    """Radii of the change from rows first (n, ...) to rows second (m, ...), unpaired.

    They are benign and suspected rows, or with `drift` benign rows of two times. The least change
    that turns one population into the other moves every quantile to its counterpart (optimal
    transport in one dimension), so the estimand is how far the quantiles (1 +- coverage) / 2 move,
    the further of the two: all values between move no further if they shift and stretch. Its
    interval joins the quantiles' own (Zou and Donner 2008), and starts at 0 unless a feature moved
    measurably, all features together. transport: also assign rows to rows, which takes a second.
    Raises DataError for too few rows.
    """
    both = rows(first, second, names, kinds, coverage=coverage, paired=False)
    n, level = min(len(both.first), len(both.second)), (1 + coverage) / 2
    if n < (least := 2 * enough(level, 0.0)):
        raise DataError(
            f"{n} rows are too few for the range that holds {100 * coverage:g} % of the values; "
            f"give at least {least} in each sample, or a lower coverage"
        )
    surely = moved(both, coverage, confidence)
    columns = _columns(both, sizes(ranges(both, coverage, confidence), surely), surely, confidence)
    notes = []
    if n < (wanted := enough(level, confidence)):
        notes.append(
            f"{n} rows bound the range only from one side; {wanted} in each sample give the radii "
            "an upper end"
        )
    if not any(column.moved for column in columns):
        notes.append("no feature differs between the samples by more than chance")
    count = sum(column.moved for column in columns)
    radii = _radii(both, surely, coverage, confidence, seed) if len(surely) else {}
    radii["l0"] = Interval(value=float(count), low=float(count), high=float(len(columns)), n=n)
    return Calibration(
        source="drift" if drift else "samples",
        coverage=coverage,
        confidence=confidence,
        n=(len(both.first), len(both.second)),
        radii=radii,
        columns=columns,
        transport=joint(both, seed) if transport else None,
        estimand=ESTIMAND.format(share=100 * coverage),
        notes=tuple(notes),
    )


def _columns(
    both: Rows, reach: Ends, surely: NDArray[np.bool_], confidence: float
) -> tuple[Column, ...]:
    n = min(len(both.first), len(both.second))
    place = {int(column): number for number, column in enumerate(both.numeric)}
    columns = []
    for column, (name, kind) in enumerate(zip(both.names, both.kinds, strict=True)):
        a, b = both.first[:, column], both.second[:, column]
        if kind == "categorical":
            radius, (transport, p_value) = None, flips(a, b)
            changed = p_value < (1 - confidence) / len(both.names)
        else:
            number = place[column]
            ends = Ends(*(part[number] for part in reach))
            if kind == "integer":
                ends = Ends(np.ceil(ends.value), np.floor(ends.low), np.ceil(ends.high))
            radius, transport, changed = (
                _interval(ends, n),
                earth_movers(a, b),
                bool(surely[number]),
            )
        columns.append(
            Column(
                name=name, kind=kind, radius=radius, flips=None, transport=transport, moved=changed
            )
        )
    return tuple(columns)


def _radii(
    both: Rows, surely: NDArray[np.bool_], coverage: float, confidence: float, seed: int
) -> dict[str, Interval]:
    furthest = largest(both, coverage, confidence, surely, seed=seed)
    parts = {"linf": furthest, "l2": furthest, "l1": furthest}
    chosen = np.flatnonzero(surely)
    if len(chosen) > 1:
        for norm in ("l2", "l1"):
            parts[norm] = total(both, coverage, confidence, chosen, length=norm == "l2", seed=seed)
    n = min(len(both.first), len(both.second))
    return {norm: _interval(part, n) for norm, part in parts.items()}


def _interval(ends: Ends, n: int) -> Interval:
    return Interval(value=float(ends.value), low=float(ends.low), high=float(ends.high), n=n)
