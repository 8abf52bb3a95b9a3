"""What a column looks like: its type, its range, and whether an attacker could touch it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError, did_you_mean, listed
from ...threat.tabular import on_grid

Array = NDArray[Any]

_MOST_CATEGORIES, _FEW = 200, 50
_SINGLE = 2**24
_ID = re.compile(r"(?i:(^|[_.\- ])(id|uuid|guid|key|nr))$|(?i:^index)$|(?<=[a-z])I[dD]$")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]00:00(:00)?)?$")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column as a table's file could tell it.

    told: the keys of the file, in order; why: what a person should know, one remark each. left_out:
    why it cannot be told, None where it can. numeric: whether relations can be looked for.
    """

    name: str
    told: dict[str, Any] = field(default_factory=dict)
    why: tuple[str, ...] = ()
    left_out: str | None = None
    numeric: bool = False

    @property
    def derived(self) -> dict[str, Any]:
        """The keys that it keeps where it follows from others."""
        return {"date": True} if "date" in self.told else {}


def profile(name: str, column: Array) -> Column:
    """What the values (N,) of a column say about it."""
    missing = _missing(column)
    if missing is not None:
        return Column(name=name, left_out=missing)
    if column.dtype.kind == "O":
        values = column.tolist()
        kinds = set(map(type, values))
        if kinds == {str}:
            return _text(name, values)
        if not all(issubclass(one, bool | int | float | np.number) for one in kinds):
            return Column(name=name, left_out="holds values of several types; give it one type")
        column = np.asarray(values, np.float64)
    if column.dtype.kind == "M":
        return _date(name, column)
    return _number(name, column)


def _missing(column: Array) -> str | None:
    if column.dtype.kind in "biu":
        return None
    if column.dtype.kind == "O":
        gone = np.array([one is None or one == "" or one != one for one in column.tolist()], bool)
    else:
        gone = np.isnan(column) if column.dtype.kind == "f" else np.isnat(column)
    what = "is missing"
    if column.dtype.kind == "f" and not gone.any():
        gone, what = np.isinf(column), "is infinite"
    if not gone.any():
        return None
    first = int(np.flatnonzero(gone)[0])
    return f"{what} in {gone.sum():,} rows, first in row {first}; fill it in, then add it"


def _text(name: str, values: list[str]) -> Column:
    seen = sorted(set(values))
    if all(_DATE.match(one) for one in seen):
        try:
            return _date(name, np.array([one[:10] for one in values], "datetime64[D]"))
        except ValueError:
            pass
    if len(seen) > _FEW and (len(seen) > _MOST_CATEGORIES or len(seen) > 0.05 * len(values)):
        return Column(
            name=name,
            left_out=f"has {len(seen):,} different texts, which are no categories; let the model "
            "see numbers made of it, or give values",
        )
    told: dict[str, Any] = {"values": seen}
    if len(seen) == 1:
        return Column(name=name, told={"change": "none", **told}, why=("the same in all rows",))
    return Column(name=name, told=told)


def _date(name: str, column: Array) -> Column:
    days = column.astype("datetime64[D]")
    if (days != column).any():
        return Column(
            name=name,
            left_out="has times of day; keep the day, and the time in a column of its own",
        )
    first, last = days.min(), days.max()
    if not np.datetime64("0001-01-01") <= first <= last <= np.datetime64("9999-12-31"):
        return Column(name=name, left_out="holds dates before the year 1 or after 9999")
    told = {"date": True, "lower": str(first), "upper": str(last)}
    if first == last:
        return Column(name=name, told={"change": "none", **told}, why=("the same in all rows",))
    return Column(name=name, told=told, numeric=True)


def _number(name: str, column: Array) -> Column:
    wide = column.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    size = max(-low, high)
    if size > float(np.finfo(np.float32).max):
        return Column(name=name, left_out="is beyond single precision; rescale it")
    whole = bool((wide == np.rint(wide)).all())
    told: dict[str, Any] = {"integer": True} if whole else {}
    why = []
    if low == high:
        told = {"change": "none", **told}
        return Column(name=name, told={**told, **_range(low, high)}, why=("the same in all rows",))
    count = len(np.unique(wide))
    named, dense = bool(_ID.search(name)), whole and high - low + 1 == count
    # So many draws from such a range would have met twice, unless somebody counts.
    unlikely = count**2 / (2 * (high - low + 1)) >= 10
    different = count == len(wide) >= 20 and whole and (named or dense or unlikely)
    if different or named:
        told = {"change": "none", **told}
        why.append("all different, as an id is" if different else "named as an id is")
    if whole and size > _SINGLE and (wide.astype(np.float32) != wide).any():
        why.append(f"beyond {_SINGLE:,}, where single precision takes neighbours for the same")
    step = None if different else _step(column, wide, whole, count)
    if step is not None:
        told["step"] = step
    return Column(
        name=name,
        told={**told, **_range(low, high)},
        why=tuple(why),
        numeric=not (different or named),
    )


def _step(column: Array, wide: Array, whole: bool, count: int) -> float | None:
    """What all values are multiples of, where single precision can tell that."""
    if whole:
        if count < 20 or np.abs(wide).max() >= 2**53:
            return None
        common = int(np.gcd.reduce(np.unique(wide).astype(np.int64)))
        return float(common) if common > 1 else None
    finest = float(np.spacing(np.abs(column.astype(np.float32)).max()))
    for digits in range(1, 7):
        step = 10.0**-digits
        if step < 4 * finest:
            return None
        exact = column.dtype == np.float32 or (np.rint(wide / step) / 10.0**digits == wide).all()
        if exact and on_grid(wide, step).all():
            common = int(np.gcd.reduce(np.unique(np.rint(wide / step)).astype(np.int64)))
            coarse = round(common * step, digits) if count >= 20 else step
            return coarse if on_grid(wide, coarse).all() else step
    return None


def _range(low: float, high: float) -> dict[str, Any]:
    return {"lower": low, "upper": high}


_LABELS = ("fraud", "is_fraud", "isfraud", "target", "label", "y", "class", "default", "status")


def need_target(target: str | None, names: list[str]) -> str | None:
    """The column of labels: the one given, or the only one that is named as such; None where none.

    Raises DataError for one that is not there, and where several are named so.
    """
    if target is not None:
        if target not in names:
            hint = did_you_mean(target, names) or ";"
            raise DataError(f"--target is {target!r}{hint} there are {listed(names)}")
        return target
    # The likeliest first: a status is often a feature where there is a fraud.
    usual = sorted(
        (name for name in names if name.lower() in _LABELS),
        key=lambda name: _LABELS.index(name.lower()),
    )
    if len(usual) > 1:
        raise DataError(
            f"{listed(map(repr, usual))} are all named as labels are; say which, e.g. --target "
            f"{shlex.quote(usual[0])}"
        )
    return next(iter(usual), None)
