"""Radii from pairs of an original and its attacked version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError
from ...stats import Ends, Interval, enough, quantile_ends, quantile_interval, wilson
from ._result import NORMS, Calibration, Column, Kind
from ._rows import Rows, rows

Array = NDArray[Any]

ESTIMAND = (
    "the size that {share:g} % of all such changes stay within: a quantile of the population that "
    "the pairs were drawn from, independently of each other"
)


def calibrate_pairs(
    x: ArrayLike,
    x_adv: ArrayLike,
    *,
    coverage: float = 0.95,
    confidence: float = 0.95,
    kinds: Sequence[Kind] | None = None,
    names: Sequence[str] | None = None,
) -> Calibration:
    """Radii that hold a share `coverage` of the changes from x (n, ...) to x_adv (n, ...).

    The estimand is the quantile of a change's size, in each norm and of each feature; its interval
    is distribution-free (`stats.quantile_ends`), and covers more than promised only where sizes are
    counts. kinds: continuous, integer or categorical for each feature; categories count for l0
    alone. Pairs that do not differ are left out. Raises DataError for too few pairs.
    """
    both = rows(x, x_adv, names, kinds, coverage=coverage, paired=True)
    delta = both.second - both.first
    changed = (delta != 0).any(1)
    delta, same = delta[changed], int((~changed).sum())
    n = len(delta)
    if n < (least := enough(coverage, 0.0)):
        raise DataError(
            f"{n} pairs differ, too few for the {100 * coverage:g} % quantile of their changes; "
            f"give at least {least}, or a lower coverage"
        )
    radii = {
        norm: _shortened(
            quantile_interval(size, coverage, confidence=confidence, whole=norm == "l0")
        )
        for norm, size in sizes(delta, both).items()
    }
    notes = [f"{same} of {same + n} pairs do not differ and were left out"] if same else []
    if n < (wanted := enough(coverage, confidence)):
        notes.append(
            f"{n} pairs bound the {100 * coverage:g} % quantile only from below; "
            f"{wanted} give it an upper end"
        )
    return Calibration(
        source="pairs",
        coverage=coverage,
        confidence=confidence,
        n=(n,),
        radii=radii,
        columns=_columns(delta, both, coverage, confidence),
        transport=None,
        estimand=ESTIMAND.format(share=100 * coverage),
        notes=tuple(notes),
    )


def sizes(delta: Array, both: Rows) -> dict[str, Array]:
    """The size of each change (n, d) in each norm; categories count for l0 alone."""
    far = np.abs(delta[:, both.numeric])
    counted = (delta != 0).sum(1).astype(np.float64)
    if not far.size:
        return {"l0": counted}
    lengths = far.max(1), np.sqrt(np.square(far).sum(1)), far.sum(1), counted
    return dict(zip(NORMS, lengths, strict=True))


def _columns(delta: Array, both: Rows, coverage: float, confidence: float) -> tuple[Column, ...]:
    far, n = np.abs(delta), len(delta)
    smooth = quantile_ends(far, coverage, confidence=confidence)
    stepped = quantile_ends(far, coverage, confidence=confidence, whole=True)
    found = []
    for place, (name, kind) in enumerate(zip(both.names, both.kinds, strict=True)):
        ends = Ends(*(part[place] for part in (stepped if kind == "integer" else smooth)))
        flipped = int((far[:, place] > 0).sum())
        category = kind == "categorical"
        found.append(
            Column(
                name=name,
                kind=kind,
                radius=None if category else _shortened(_interval(ends, n)),
                flips=wilson(flipped, n, confidence) if category else None,
                transport=flipped / n if category else float(far[:, place].mean()),
                moved=flipped > 0,
            )
        )
    return tuple(found)


def _interval(ends: Ends, n: int) -> Interval:
    return Interval(value=float(ends.value), low=float(ends.low), high=float(ends.high), n=n)


def _shortened(interval: Interval) -> Interval:
    """A size is at least 0, also where too few pairs bound it from below."""
    return Interval(
        value=interval.value, low=max(interval.low, 0.0), high=interval.high, n=interval.n
    )
