"""The columns of a table as people keep them, and as rows of numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError, did_you_mean, listed, one_line
from .._region import Box
from ._capability import Capability
from ._evaluate import column_of, value
from ._feature import Feature
from ._parse import read_value
from ._tree import Value, names

Array = NDArray[Any]


# The last day of the year 9999, since 1970.
_LATEST = 2_932_896


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
            self._staked(self.stake)

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
        tree = self._staked(self.stake)
        found = value(tree, column_of(wide, self.capability.index))
        money: Array = np.broadcast_to(np.asarray(found), wide.shape[:-1])
        return money

    def _staked(self, stake: str) -> Value:
        labels = {one.name: one.labels for one in self.capability.features if one.labels}
        return read_value(stake, self.columns, labels)

    def spent(self, x: ArrayLike, x_adv: ArrayLike) -> Array:
        """What changes of rows (N, F) cost besides money that is no longer at stake (N,).

        A unit's cost of a column that the stake is made of is what is given up of it, as far as the
        stake after the change is that much less.
        """
        before, after = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
        told = np.zeros(len(before))
        for name in self._given_up():
            place = self.capability.index[name]
            unit = self.capability.features[place].cost
            told += unit * np.abs(after[:, place] - before[:, place])
        stakes = self.at_stake(before), self.at_stake(after)
        if stakes[0] is not None and stakes[1] is not None:
            with np.errstate(invalid="ignore"):
                lost = np.nan_to_num(np.maximum(stakes[0] - stakes[1], 0.0), posinf=0.0)
            told = np.minimum(told, lost)
        return np.asarray(self.capability.cost(before, after) - told)

    def _given_up(self) -> set[str]:
        """The columns that the stake is made of, through what is derived, too."""
        made = {one.name: one for one in self.capability.derived}
        found: set[str] = set()
        left = set() if self.stake is None else set(names(self._staked(self.stake)))
        while left:
            name = left.pop()
            if name in made:
                left |= made[name].columns
            else:
                found.add(name)
        return found

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
        found = None
        for place, one in enumerate(self.capability.features):
            column = _encoded(one, np.asarray(columns[one.name]))
            if found is None:
                found = np.empty((len(column), len(self.columns)), np.float32)
            elif len(column) != len(found):
                raise DataError(
                    f"column {one.name!r} has {len(column)} values and the one before it "
                    f"{len(found)}; give one for each row"
                )
            found[:, place] = column
        assert found is not None
        return found

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
    if column.ndim != 1:
        raise DataError(
            f"column {feature.name!r} has shape {column.shape}; give one value for each row (N,)"
        )
    if feature.labels is not None:
        return _codes(feature, column, feature.labels)
    missing = _missing(column)
    if missing.any():
        raise _wrong(feature, missing, "is missing", _FILL)
    if feature.date:
        return _days(feature, column)
    if column.dtype.kind not in "biuf":
        column = _numbers(feature, column)
    with np.errstate(over="ignore"):
        narrow = column.astype(np.float32)
    endless = ~np.isfinite(narrow)
    if endless.any():
        told = "is infinite" if np.isinf(column[endless][0]) else "is beyond single precision"
        raise _wrong(feature, endless, told, "correct it, or drop those rows")
    return narrow


_FILL = "fill it in, or drop those rows"


def _missing(column: Array) -> Array:
    """Which values (N,) are none: None, NaN, NaT, and texts without a character."""
    if column.dtype.kind in "biu":
        return np.zeros(len(column), bool)
    if column.dtype.kind in "fmM":
        return np.isnan(column) if column.dtype.kind == "f" else np.isnat(column)
    values = column.tolist()
    if all(issubclass(one, str) for one in set(map(type, values))):
        return np.array([not one for one in values], bool)
    return np.array([_is_missing(one) for one in values], bool)


def _is_missing(one: object) -> bool:
    try:
        return one is None or one == "" or bool(one != one)
    except (TypeError, ValueError):  # pandas' NA is neither equal to itself nor not
        return True


def _numbers(feature: Feature, column: Array) -> Array:
    if column.dtype.kind in "mM":
        raise _wrong(feature, np.ones(len(column), bool), "is a date", "say date: true")
    found = np.full(len(column), np.nan)
    for row, one in enumerate(column.tolist()):
        try:
            found[row] = float(one)
        except OverflowError:
            found[row] = np.inf
        except (TypeError, ValueError):
            raise DataError(
                f"column {feature.name!r} is {one_line(repr(one), 40)} in row {row}, which is no "
                "number; correct it, or give the column values in the table's file"
            ) from None
    return found


def _codes(feature: Feature, column: Array, labels: tuple[str, ...]) -> Array:
    values = np.asarray(feature.values, np.float32)
    place: dict[Any, int] = {name: code for code, name in enumerate(labels)}
    if column.dtype.kind in "biufmM":
        # Of single precision 3.1 is 3.1, and not the nearest number of double precision.
        seen, back = np.unique(column, return_inverse=True)
        texts = [label_of(one) for one in seen]
        codes = np.array([place.get(text, -1) for text in texts])[back]
        known = codes >= 0
        if not known.all():
            row = int(np.flatnonzero(~known)[0])
            raise _unknown(feature, row, texts[back[row]], bool(_missing(column)[row]), labels)
        return np.asarray(values[codes])
    rows = column.tolist()
    if any(not issubclass(one, str) for one in set(map(type, rows))):
        rows = ["" if _is_missing(one) else label_of(one) for one in rows]
    try:
        return np.asarray(values[[place[text] for text in rows]])
    except KeyError:
        row = next(row for row, text in enumerate(rows) if text not in place)
        raise _unknown(feature, row, rows[row], not rows[row], labels) from None


def _unknown(
    feature: Feature, row: int, text: str, missing: bool, labels: tuple[str, ...]
) -> DataError:
    if missing:
        return DataError(f"column {feature.name!r} is missing in row {row}; {_FILL}")
    hint = did_you_mean(text, labels) or ";"
    return DataError(
        f"column {feature.name!r} is {one_line(text, 40)!r} in row {row}, which is none of "
        f"its categories{hint} they are {listed(labels)}; add it to the table's file, or "
        "drop those rows"
    )


def label_of(value: Any) -> str:
    """A category's name as it stands in files: 3.0 is 3, True is true."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _days(feature: Feature, column: Array) -> Array:
    if column.dtype.kind in "iuf":
        odd = (column != np.rint(column)) | (np.abs(column.astype(np.float64)) > _LATEST)
        if odd.any():
            raise _wrong(feature, odd, "is no day since 1970", "write dates as 2026-01-31")
        return np.asarray(column.astype(np.float32))
    if column.dtype.kind == "M":
        times = column.astype("datetime64[us]")
    else:
        texts = [one if isinstance(one, str) else str(one) for one in column.tolist()]
        read = {text: _moment(text) for text in set(texts)}
        for row, text in enumerate(texts):
            if read[text] is None:
                raise DataError(
                    f"column {feature.name!r} is {one_line(text, 40)!r} in row {row}, which is no "
                    "date; write it as 2026-01-31"
                )
        times = np.array([read[text] for text in texts], "datetime64[us]")
    days = times.astype("datetime64[D]")
    timed = times != days
    if timed.any():
        raise _wrong(
            feature, timed, "has a time of day", "keep the day, and the time in its own column"
        )
    return days.astype(np.int64).astype(np.float32)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if _DATED.match(text) else None
    except ValueError:
        return None
    return found and found.replace(tzinfo=None)


_DATED = re.compile(r"\d{4}-\d\d-\d\d")


def _decoded(feature: Feature, column: Array) -> Array:
    if feature.labels is not None:
        # The nearest one, for rows that are between categories on the way of an attack.
        order = np.argsort(feature.values or ())
        values = np.asarray(feature.values, np.float64)[order]
        places = np.searchsorted((values[1:] + values[:-1]) / 2, column)
        return np.asarray(np.array(feature.labels, object)[order][places])
    if feature.date:
        return np.array(column.astype("datetime64[D]").astype(str), object)
    wide = column.astype(np.float64)
    # Beyond it float64 has no fractions either, and further on int64 ends.
    if feature.integer and (np.abs(wide) < 2**53).all():
        return np.asarray(wide.astype(np.int64))
    if feature.step is not None:
        digits = max(0, -int(np.floor(np.log10(feature.step))) + 6)
        near = np.round(np.rint(wide / feature.step) * feature.step, digits)
        return np.where(near.astype(np.float32) == column, near, _short(column))
    return _short(column)


def _short(column: Array) -> Array:
    """The shortest decimals (N,), float64, that read back to the same single precision."""
    wide = column.astype(np.float64)
    found, left = wide.copy(), wide != np.rint(wide)
    for digits in range(1, 10):
        if not left.any():
            break
        part = wide[left]
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(part))))
        # Both exact, so that the quotient is the double nearest to the decimal.
        near = np.rint(part * scale) / scale
        same = (near.astype(np.float32) == column[left]) & (scale <= 1e22) & (scale >= 1)
        rows = np.flatnonzero(left)
        found[rows[same]] = near[same]
        left[rows[same]] = False
    if left.any():
        found[left] = column[left].astype(str).astype(np.float64)
    return found


def _wrong(feature: Feature, rows: Array, why: str, fix: str) -> DataError:
    first, count = int(np.flatnonzero(rows)[0]), int(rows.sum())
    more = f" and {count - 1} more" if count > 1 else ""
    return DataError(f"column {feature.name!r} {why} in row {first}{more}; {fix}")
