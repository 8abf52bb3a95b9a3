"""The columns of a table as people keep them, and as rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError, did_you_mean, listed, one_line
from .._region import Box
from ._capability import Capability
from ._evaluate import column_of, value
from ._feature import Feature
from ._parse import read_value

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the columns of a table are, what can be done to them, and what a row is worth.

    Rows are float32 (N, F): categories are their place among the labels, dates days since 1970.
    stake: an expression of the money that is at stake in a row, such as `amount`, in `currency`.
    """

    capability: Capability
    stake: str | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        if self.stake is not None:
            read_value(self.stake, self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of rows."""
        return tuple(one.name for one in self.capability.features)

    @property
    def domain(self) -> Box:
        """The bounds of each feature; what is derived has none."""
        low = np.array([one.lower for one in self.capability.features])
        high = np.array([one.upper for one in self.capability.features])
        for place, one in enumerate(self.capability.features):
            if one.values is not None:
                low[place], high[place] = min(one.values), max(one.values)
        made = [self.capability.index[one.name] for one in self.capability.derived]
        low[made], high[made] = -np.inf, np.inf
        return Box(low, high)

    def limited(self, *, most_changed: int | None, most_cost: float | None) -> Table:
        """The same for an attacker who can do this much at most, and no more than before."""
        own = self.capability
        return replace(
            self,
            capability=replace(
                own,
                most_changed=_least(own.most_changed, most_changed),
                most_cost=_least(own.most_cost, most_cost),
            ),
        )

    def at_stake(self, rows: ArrayLike) -> Array | None:
        """The money (N,) at stake in rows (N, F); None where the table does not say."""
        if self.stake is None:
            return None
        wide = np.asarray(rows, np.float64)
        tree = read_value(self.stake, self.columns)
        found = value(tree, column_of(wide, self.capability.index))
        money: Array = np.broadcast_to(np.asarray(found), wide.shape[:-1])
        return money

    def encode(self, columns: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Rows (N, F) of columns (N,) by name; others are not looked at.

        Raises DataError for a column that is missing, and for a value that is missing, no number,
        or no known category, with its row.
        """
        for name in self.columns:
            if name not in columns:
                hint = did_you_mean(name, list(columns))
                raise DataError(
                    f"column {name!r} of the table is missing{hint or ';'} there are "
                    f"{listed(columns, 8)}"
                )
        found = [_encoded(one, np.asarray(columns[one.name])) for one in self.capability.features]
        return np.stack(found, 1)

    def decode(self, rows: ArrayLike) -> dict[str, Array]:
        """The columns (N,) of rows (N, F): texts, dates, whole numbers and short decimals.

        Encoded again they are the same rows, also by way of a csv file.
        """
        narrow = np.asarray(rows, np.float32)
        features = enumerate(self.capability.features)
        return {one.name: _decoded(one, narrow[:, place]) for place, one in features}


def _least(one: Any, other: Any) -> Any:
    told = [limit for limit in (one, other) if limit is not None]
    return min(told, default=None)


def _encoded(feature: Feature, column: Array) -> Array:
    missing = np.array([one is None or one != one for one in column.tolist()], bool)
    if missing.any():
        raise _wrong(feature, missing, "is missing", "fill it in, or drop those rows")
    if feature.labels is not None:
        return _codes(feature, column, feature.labels)
    if feature.date:
        return _days(feature, column)
    if column.dtype.kind not in "biuf":
        column = _numbers(feature, column)
    with np.errstate(over="ignore"):
        narrow = column.astype(np.float32)
    endless = ~np.isfinite(narrow)
    if endless.any():
        raise _wrong(feature, endless, "is beyond single precision", "rescale it")
    return narrow


def _numbers(feature: Feature, column: Array) -> Array:
    found = np.full(len(column), np.nan)
    for row, one in enumerate(column.tolist()):
        try:
            found[row] = float(one)
        except (TypeError, ValueError):
            raise DataError(
                f"column {feature.name!r} is {one_line(repr(one), 40)} in row {row}, which is no "
                "number; correct it, or give the column values in the table's file"
            ) from None
    return found


def _codes(feature: Feature, column: Array, labels: tuple[str, ...]) -> Array:
    place = {name: code for code, name in enumerate(labels)}
    texts = [label_of(one) for one in column.tolist()]
    for row, text in enumerate(texts):
        if text not in place:
            hint = did_you_mean(text, labels) or ";"
            raise DataError(
                f"column {feature.name!r} is {one_line(text, 40)!r} in row {row}, which is none of "
                f"its categories{hint} they are {listed(labels)}; add it to the table's file, or "
                "drop those rows"
            )
    values = np.asarray(feature.values, np.float32)
    return np.asarray(values[[place[text] for text in texts]])


def label_of(value: object) -> str:
    """A category's name as it stands in files: 3.0 is 3, True is true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def _days(feature: Feature, column: Array) -> Array:
    if column.dtype.kind in "iuf":
        return column.astype(np.float32)
    try:
        times = np.asarray(
            column if column.dtype.kind == "M" else [str(one) for one in column.tolist()],
            "datetime64[s]",
        )
    except ValueError:
        raise DataError(
            f"column {feature.name!r} holds no dates; write them as 2026-01-31"
        ) from None
    days = times.astype("datetime64[D]")
    timed = times != days
    if timed.any():
        raise _wrong(
            feature, timed, "has a time of day", "keep the day, and the time in its own column"
        )
    return days.astype(np.int64).astype(np.float32)


def _decoded(feature: Feature, column: Array) -> Array:
    if feature.labels is not None:
        values = np.asarray(feature.values, np.float32)
        places = np.abs(column[:, None] - values).argmin(1)
        return np.array(feature.labels, object)[places]
    if feature.date:
        return np.array(column.astype("datetime64[D]").astype(str), object)
    if feature.integer:
        return np.asarray(column.astype(np.int64))
    if feature.step is not None:
        digits = max(0, -int(np.floor(np.log10(feature.step))) + 6)
        near = np.round(np.rint(column.astype(np.float64) / feature.step) * feature.step, digits)
        return np.where(near.astype(np.float32) == column, near, column.astype(np.float64))
    # The shortest decimal that reads back to the same number.
    return column.astype(str).astype(np.float64)


def _wrong(feature: Feature, rows: Array, why: str, fix: str) -> DataError:
    first, count = int(np.flatnonzero(rows)[0]), int(rows.sum())
    more = f" and {count - 1} more" if count > 1 else ""
    return DataError(f"column {feature.name!r} {why} in row {first}{more}; {fix}")
