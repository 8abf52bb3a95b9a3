"""Suspects of tables: statistics of scaling, order of columns, units, missing values, rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._suspect import Suspect, before, missing_or_twice

# What stands for a missing value where NaN cannot.
_MARKS = (-1.0, -99.0, -999.0, -9999.0, -99999.0)
_UNITS = (100.0, 1000.0, 60.0, 0.01, 0.001, 1 / 60)
_MOST = 64


def table_suspects(x: Tensor, features: Sequence[str] | None) -> list[Suspect]:
    """All suspects of rows x (N, d) but encodings; features: the names of the columns."""
    names = [f"column {j}" for j in range(x.shape[1])] if features is None else list(features)
    return [
        *_missing(x, names),
        *_statistics(x),
        *_order(x, features),
        *_rounding(),
        *(_units(names) if len(names) <= _MOST else []),
    ]


def _statistics(x: Tensor) -> list[Suspect]:
    """Scalers whose statistics are estimated from the rows at hand, so they explain nearly all."""
    known = torch.where(x.isfinite(), x, x.nanmean(0))
    spans = {
        "standardisation (x - mean) / std": (known.mean(0), known.std(0, correction=0)),
        "min-max scaling": (known.amin(0), known.amax(0) - known.amin(0)),
    }
    found = []
    for name, (centre, width) in spans.items():
        width = torch.where(width > 0, width, torch.ones_like(width))
        found += missing_or_twice(
            "scaling",
            f"the {name}",
            f"apply the fitted {name} exactly once where the model is served",
            forward=lambda x, c=centre, w=width: (x - c.to(x)) / w.to(x),  # type: ignore[misc]
            backward=lambda x, c=centre, w=width: x * w.to(x) + c.to(x),  # type: ignore[misc]
        )
    return found


def _order(x: Tensor, features: Sequence[str] | None) -> list[Suspect]:
    columns = list(range(x.shape[1]))
    orders = {
        "in reverse": columns[::-1],
        "moved by one, the first at the end": [*columns[1:], columns[0]],
        "moved by one, the last in front": [columns[-1], *columns[:-1]],
    }
    if features is not None:
        orders["in alphabetical order"] = sorted(columns, key=lambda j: features[j])
    return [
        Suspect(
            step="column order",
            change=f"columns come {name}",
            fix="select the columns by name, in the order of training, where the model is served",
            alter=before(lambda x, order=order: x[:, order]),  # type: ignore[misc]
        )
        for name, order in orders.items()
        if order != columns
    ]


def _missing(x: Tensor, names: Sequence[str]) -> list[Suspect]:
    """Other fillings of what is missing: NaN, or the mark that a column has below all else."""
    marks = x.new_full(x.shape[1:], torch.nan)
    for j, column in enumerate(x.T):
        least = column.min()
        others = column[column != least]
        apart = len(others) and others.min() - least > 0.5 * (others.max() - others.min())
        if float(least) in _MARKS and apart:
            marks[j] = least

    def gone(rows: Tensor) -> Tensor:
        return rows.isnan() | (rows == marks.to(rows))

    if not bool(gone(x).any()):
        return []
    known = torch.where(gone(x), torch.nan, x)
    columns = [column[~column.isnan()] for column in known.T]
    columns = [column if len(column) else torch.zeros(1) for column in columns]
    fills = {
        "0": torch.zeros(len(columns)),
        "the mean": torch.stack([column.mean() for column in columns]),
        "the median": torch.stack([column.quantile(0.5) for column in columns]),
        "the most frequent value": torch.stack([column.mode().values for column in columns]),
        "the least value": torch.stack([column.min() for column in columns]),
        "the greatest value": torch.stack([column.max() for column in columns]),
        **{f"{mark:g}": torch.full((len(columns),), mark) for mark in _MARKS},
    }
    return [
        Suspect(
            step="missing values",
            change=f"missing values are filled with {name}",
            fix="fill missing values as in training, with the statistics of training",
            alter=before(lambda x, fill=fill: torch.where(gone(x), fill.to(x), x)),  # type: ignore[misc]
        )
        for name, fill in fills.items()
    ]


def _rounding() -> list[Suspect]:
    def rounded(x: Tensor, digits: int) -> Tensor:
        return x.double().round(decimals=digits).to(x.dtype)

    changes = [
        (f"values are rounded to {digits} digits behind the point", digits) for digits in range(7)
    ]
    found = [
        Suspect(
            step="rounding",
            change=change,
            fix="send all digits, or evaluate on rounded values",
            alter=before(lambda x, digits=digits: rounded(x, digits)),  # type: ignore[misc]
        )
        for change, digits in changes
    ]
    cut = Suspect(
        step="rounding",
        change="values are cut to whole numbers",
        fix="send floating-point values where the model is served",
        alter=before(torch.trunc),
    )
    return [cut, *found]


def _units(names: Sequence[str]) -> list[Suspect]:
    found = []
    for j, name in enumerate(names):
        for factor in _UNITS:

            def scaled(x: Tensor, j: int = j, factor: float = factor) -> Tensor:
                x = x.clone()
                x[:, j] *= factor
                return x

            found.append(
                Suspect(
                    step="units",
                    change=f"{name} comes in another unit, {factor:.3g} times the value",
                    fix=f"convert {name} to the unit of training where the model is served",
                    alter=before(scaled),
                )
            )
    return found
