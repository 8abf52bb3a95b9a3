"""Whether the largest changes that a table's file allows fit what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from ..._errors import DataError, listed
from ...stats import Interval
from ...threat.tabular import Feature, Table
from ._judge import Fit, fits, rounded_up
from ._result import Calibration, Column


@dataclass(frozen=True, kw_only=True)
class ColumnFit:
    """How the largest change of a column compares with what was observed of it.

    most: as the table's file has it, None without. observed: the calibrated radius. advised: what
    `most` had better be, None where something else is to be mended, as fix says.
    """

    name: str
    most: float | None
    observed: Interval
    fit: Fit
    advised: float | None
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values."""
        return {**vars(self), "observed": self.observed.to_dict()}


def judge_columns(calibration: Calibration, table: Table) -> tuple[ColumnFit, ...]:
    """Each column of numbers that measurably moved, in the table's order.

    Columns without names are taken in the table's order. Raises DataError where none is of the
    table, or where their number differs.
    """
    capability = table.capability
    names, columns = [feature.name for feature in capability.features], calibration.columns
    if all(column.name == f"feature {place}" for place, column in enumerate(columns)):
        if len(columns) != len(names):
            raise DataError(
                f"the samples have {len(columns)} features, the table's file {len(names)}; give "
                "rows of that table"
            )
        columns = tuple(
            replace(column, name=name) for column, name in zip(columns, names, strict=True)
        )
    found = {column.name: column for column in columns}
    if not found.keys() & set(names):
        raise DataError(
            f"none of the columns is in the table's file, which has {listed(names, 5)}; give rows "
            "of that table"
        )
    given_up = {one.name for one in capability.derived}
    given_up |= {name for choice in capability.choices for name in choice.columns}
    return tuple(
        _judged(feature, found[feature.name], found[feature.name].radius)
        for feature in capability.features
        if feature.name in found and feature.name not in given_up
        if found[feature.name].moved and feature.values is None
    )


def _judged(feature: Feature, column: Column, radius: Interval | None) -> ColumnFit:
    if radius is None:
        raise DataError(
            f"column {feature.name} is a category in the samples and a number in the table's file; "
            "correct one of them"
        )
    span = feature.upper - feature.lower
    most = feature.most if feature.most is not None else span
    found = ColumnFit(
        name=feature.name,
        most=feature.most,
        observed=radius,
        fit=fits(radius, min(most, span)),
        advised=_advised(feature, radius.value),
        fix="none needed",
    )
    if feature.change == "none":
        fix = "the file says that nobody changes it; correct change, or the samples"
        return replace(found, fit="too tight", advised=None, fix=fix)
    if feature.most is None and feature.share is not None:
        fix = "it is limited by share, which these radii do not tell; compare by hand"
        return replace(found, fit="unknown", advised=None, fix=fix)
    if found.fit == "fits":
        return replace(found, advised=None)
    if found.fit == "too tight" and span < radius.low:
        return replace(found, advised=None, fix="its range is narrower; widen lower and upper")
    return replace(found, fix=f"set most to {found.advised:g}")


def _advised(feature: Feature, radius: float) -> float:
    """The radius rounded up to three digits, to whole numbers or to steps."""
    step = feature.step or (1.0 if feature.integer else 0.0)
    if not step:
        return rounded_up(radius)
    return float(f"{ceil(radius / step * (1 - 1e-12)) * step:.12g}")


def advised_changes(columns: Sequence[ColumnFit]) -> dict[str, float]:
    """The `most` to write, by column."""
    return {one.name: one.advised for one in columns if one.advised is not None}
