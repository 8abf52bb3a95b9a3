"""Two sets of rows with the same columns, and what kinds these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError, listed
from ._result import Kind

Array = NDArray[Any]
KINDS = get_args(Kind)


class Rows(NamedTuple):
    """Two samples (n, d) and (m, d) in float64, with a name and a kind for each column.

    Categories are codes, of which only equality counts.
    """

    first: Array
    second: Array
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]

    @property
    def numeric(self) -> NDArray[np.intp]:
        """The columns that are numbers."""
        return np.flatnonzero([kind != "categorical" for kind in self.kinds])

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which columns are whole numbers (d,)."""
        return np.asarray([kind == "integer" for kind in self.kinds], bool)


def rows(
    first: ArrayLike,
    second: ArrayLike,
    names: Sequence[str] | None,
    kinds: Sequence[Kind] | None,
    *,
    coverage: float,
    paired: bool,
) -> Rows:
    """Samples (n, ...) and (m, ...) as rows; raises DataError for what cannot be compared.

    kinds: integer for arrays of whole-number types and continuous for others, if not given.
    """
    if not 0 < coverage < 1:
        raise DataError(f"coverage is {coverage:g}; give a share between 0 and 1, such as 0.95")
    arrays = np.asarray(first), np.asarray(second)
    for array in arrays:
        if array.dtype.kind not in "biuf":
            raise DataError(f"a sample holds {array.dtype}, not numbers; give categories as codes")
        if array.ndim < 2 or not array.size:
            raise DataError(f"a sample has shape {array.shape}; give rows of features, (N, ...)")
        if not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
            raise DataError(
                f"{len(bad)} of {len(array)} rows hold NaN or infinite values, first row {bad[0]}; "
                "fill them in or drop those rows"
            )
    a, b = arrays
    if a.shape[1:] != b.shape[1:] or (paired and len(a) != len(b)):
        raise DataError(
            f"the samples have shapes {a.shape} and {b.shape}; give the same features in both"
            + (", and one attacked row for each original" if paired else "")
        )
    flat = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    width = flat[0].shape[1]
    whole = a.dtype.kind in "biu" and b.dtype.kind in "biu"
    default: Kind = "integer" if whole else "continuous"
    told = tuple(names or (f"feature {i}" for i in range(width)))
    types: tuple[Kind, ...] = tuple(kinds or (default,) * width)
    for what, given in (("names", told), ("kinds", types)):
        if len(given) != width:
            raise DataError(f"there are {len(given)} {what} for {width} features; give one each")
    if unknown := set(types) - set(KINDS):
        raise DataError(f"kind {listed(sorted(unknown))} is unknown; use {listed(KINDS)}")
    return Rows(*flat, told, types)
