"""Histograms of a table's features: what is usual of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import ConfigError, DataError, one_line
from .._whole import whole
from ..threat.tabular import Feature, Table

Array = NDArray[Any]

FEWEST = 300
_BINS = 10
_MOST = 50


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many rows had which values of one feature.

    points: the upper edges of bins, of which the last has none; or, if single, the values that have
    a bin each, of which the last is for all others. counts: one more than points.
    """

    points: tuple[float, ...]
    counts: tuple[int, ...]
    single: bool


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """The histograms of the features of a table by name, in its order, and the rows they count."""

    rows: int
    features: Mapping[str, Histogram]

    @classmethod
    def of(cls, rows: Array, table: Table) -> Histograms:
        """Of rows (N, F): ten bins of equally many rows, or the shares of categories.

        A feature of at most ten values has a bin for each. Of many categories the 49 most frequent
        have their own. Raises DataError for fewer than 300 rows, or one that breaks a rule.
        """
        if len(rows) < FEWEST:
            raise DataError(f"{len(rows)} rows do not tell what is usual; give at least {FEWEST}")
        table.capability.check(rows)
        found = {
            one.name: _histogram(np.asarray(rows[:, place], np.float64), one)
            for place, one in enumerate(table.capability.features)
        }
        return cls(rows=len(rows), features=found)

    def save(self, path: Path, table: Table) -> None:
        """Write a JSON file, with categories by their names."""
        told = {
            name: {
                "values" if one.single else "edges": [
                    _named(point, table, name) for point in one.points
                ],
                "counts": list(one.counts),
            }
            for name, one in self.features.items()
        }
        try:
            with whole(path) as file:
                file.write(json.dumps({"rows": self.rows, "features": told}, indent=1).encode())
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({one_line(error, 100)})") from None


def load_histograms(path: str | Path, table: Table) -> Histograms:
    """The histograms in a file; raises ConfigError where it is damaged or of another table."""
    fix = "make it anew with `withstand table histograms`"
    try:
        told = json.loads(Path(path).read_bytes())
        names = list(told["features"])
        if names != list(table.columns):
            raise ConfigError(f"{path} is of other columns than the table; {fix}")
        features = {
            one.name: _read(told["features"][one.name], one) for one in table.capability.features
        }
        rows = told["rows"]
        if type(rows) is not int or rows < FEWEST:
            raise ValueError(f"rows is {rows!r}")
        for name, histogram in features.items():
            if sum(histogram.counts) != rows:
                raise ValueError(f"the counts of {name!r} are not {rows}")
    except FileNotFoundError:
        raise ConfigError(f"{path} not found; make it with `withstand table histograms`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read as histograms ({one_line(error, 100)}); {fix}"
        ) from None
    return Histograms(rows=rows, features=features)


def _histogram(values: Array, feature: Feature) -> Histogram:
    known, counts = np.unique(values, return_counts=True)
    single = feature.values is not None or len(known) <= _BINS
    if single:
        kept = np.sort(np.argsort(-counts, kind="stable")[: _MOST - 1])
        points, held = known[kept], [*counts[kept], len(values) - counts[kept].sum()]
    else:
        # Of equal values several quantiles may be one.
        points = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS))
        held = list(np.bincount(np.searchsorted(points, values), minlength=len(points) + 1))
    return Histogram(
        points=tuple(points.tolist()), counts=tuple(int(one) for one in held), single=single
    )


def _named(point: float, table: Table, name: str) -> float | str:
    labels = table.capability.features[table.capability.index[name]].labels
    # A category's place changes when another is added to the table's file.
    return point if labels is None else labels[int(point)]


def _read(told: Mapping[str, Any], feature: Feature) -> Histogram:
    single = "values" in told
    points, counts = told["values" if single else "edges"], told["counts"]
    if feature.labels is not None:
        pairs = sorted(zip((feature.labels.index(one) for one in points), counts, strict=False))
        points, counts = [one for one, _ in pairs], [*(n for _, n in pairs), *counts[len(pairs) :]]
    points = [float(one) for one in points]
    if not points or not np.isfinite(points).all() or points != sorted(set(points)):
        raise ValueError(f"the bins of {feature.name!r} are not in order")
    if len(points) >= _MOST or len(counts) != len(points) + 1:
        raise ValueError(f"{feature.name!r} has {len(points)} points and {len(counts)} counts")
    if not all(type(one) is int and one >= 0 for one in counts):
        raise ValueError(f"a count of {feature.name!r} is no whole number")
    return Histogram(points=tuple(points), counts=tuple(counts), single=single)
