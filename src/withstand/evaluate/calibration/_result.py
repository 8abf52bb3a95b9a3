"""What a calibration found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ...stats import Interval

Kind = Literal["continuous", "integer", "categorical"]
Source = Literal["pairs", "samples", "drift"]
NORMS = ("linf", "l2", "l1", "l0")


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one feature changes.

    radius: None for categories. flips: share of the pairs in which a category changes, None
    elsewhere. transport: the least mean change that turns one sample into the other: the mean size
    of the pairs' changes, the 1-Wasserstein distance of unpaired samples, and for categories the
    share of rows that must change. moved: the change is more than chance, all features together.
    """

    name: str
    kind: Kind
    radius: Interval | None
    flips: Interval | None
    transport: float
    moved: bool


@dataclass(frozen=True, kw_only=True)
class Transport:
    """The least mean Euclidean change that turns one sample's numbers into the other's.

    floor: the 95 % quantile of the same distance when rows are dealt to the samples at random.
    p_value: how often that is at least as far. rows: how many of each sample were assigned.
    """

    distance: float
    floor: float
    p_value: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Radii of a region that holds the observed changes, by norm and by feature.

    radii: in raw input units, for l0 a number of features; an interval's high end is infinite where
    there are too few rows for one. `n` are the rows of each sample, or the pairs that differ.
    """

    source: Source
    coverage: float
    confidence: float
    n: tuple[int, ...]
    radii: dict[str, Interval]
    columns: tuple[Column, ...]
    transport: Transport | None
    estimand: str
    notes: tuple[str, ...]

    @property
    def moved(self) -> bool:
        """Whether there is a change at all that is more than chance."""
        return any(column.moved for column in self.columns)

    def to_dict(self) -> dict[str, Any]:
        """The calibration as plain values; an infinite end is null."""
        return {
            "source": self.source,
            "coverage": self.coverage,
            "confidence": self.confidence,
            "n": list(self.n),
            "radii": {norm: radius.to_dict() for norm, radius in self.radii.items()},
            "features": [
                {
                    **vars(column),
                    "radius": column.radius and column.radius.to_dict(),
                    "flips": column.flips and column.flips.to_dict(),
                }
                for column in self.columns
            ],
            "transport": self.transport and vars(self.transport),
            "estimand": self.estimand,
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The calibration as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
