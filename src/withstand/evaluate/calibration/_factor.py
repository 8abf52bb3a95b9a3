"""By what factor attackers multiply a number, from what the same accounts do otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._errors import DataError, did_you_mean
from ...data import Columns
from ...stats import Interval
from ...threat.tabular import label_of

Array = NDArray[Any]

_OWN = 5
_FEWEST, _ENOUGH = 10, 30
_RESAMPLES, _AT_ONCE = 2000, 100


@dataclass(frozen=True, kw_only=True)
class Factor:
    """The factor by which attacks multiply a column, and the same figure where there is no attack.

    factor: its interval's n are the attacked rows. control: of benign rows in their place, and so 1
    unless what is measured is no attack. groups: accounts with both, which are what was resampled.
    left_out: attacked rows of accounts with too few benign ones.
    """

    column: str
    factor: Interval
    control: Interval
    groups: int
    left_out: int
    confidence: float
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether the control's interval covers 1."""
        return self.control.low <= 1 <= self.control.high

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "column": self.column,
            "factor": self.factor.to_dict(),
            "control": self.control.to_dict(),
            "sound": self.sound,
            "groups": self.groups,
            "left_out": self.left_out,
            "confidence": self.confidence,
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """All of it as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def calibrate_factor(
    benign: ArrayLike,
    accounts: ArrayLike,
    attacked: ArrayLike,
    attacked_accounts: ArrayLike,
    *,
    column: str = "value",
    confidence: float = 0.95,
    seed: int = 0,
) -> Factor:
    """The factor between attacked values (m,) and benign ones (n,) > 0 of the same accounts.

    Each attacked value is divided by the median of its account's own benign ones, of which there
    must be 5; the factor is the median of these ratios. Rows of an account are not independent, so
    its interval is the percentile bootstrap over accounts (Field and Welsh 2007). The control
    compares as many of each account's last benign rows with those before, so rows come in the order
    of time: accounts that change by themselves show there.
    Raises DataError for fewer than 10 accounts, and for values that have no ratio.
    """
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence:g}; give a share between 0 and 1, such as 0.95")
    own, bad = _values(benign, "benign"), _values(attacked, "attacked")
    who, whose = np.asarray(accounts).ravel(), np.asarray(attacked_accounts).ravel()
    for name, values, keys in (("benign", own, who), ("attacked", bad, whose)):
        if len(values) != len(keys):
            raise DataError(f"{len(values)} {name} values for {len(keys)} accounts; give one each")
    draw = np.random.default_rng(seed)
    ratios: list[Array] = []
    controls: list[Array] = []
    order = np.argsort(who, kind="stable")
    keys, first = np.unique(who[order], return_index=True)
    parts = dict(zip(keys.tolist(), np.split(own[order], first[1:]), strict=True))
    left_out = 0
    for key in np.unique(whose).tolist():
        values, known = bad[whose == key], parts.get(key, own[:0])
        if len(known) < _OWN:
            left_out += len(values)
            continue
        ratios.append(values / np.median(known))
        # What is left must still tell the account's usual value.
        count = min(len(values), len(known) - _OWN + 1)
        controls.append(known[-count:] / np.median(known[:-count]))
    if len(ratios) < _FEWEST:
        raise DataError(
            f"{len(ratios)} accounts have attacked values and at least {_OWN} benign ones; give "
            f"{_FEWEST} or more of them"
        )
    notes = []
    if len(ratios) < _ENOUGH:
        notes.append(f"{len(ratios)} accounts are few: intervals of fewer than {_ENOUGH} are rough")
    found = Factor(
        column=column,
        factor=_median(ratios, confidence, draw),
        control=_median(controls, confidence, draw),
        groups=len(ratios),
        left_out=left_out,
        confidence=confidence,
        notes=tuple(notes),
    )
    if not found.sound:
        why = "the control is not 1: accounts change by themselves; do not rely on the factor"
        found = Factor(**{**vars(found), "notes": (*notes, why)})
    return found


def read_factor(
    benign: str | Path, attacked: str | Path, column: str, by: str
) -> tuple[Array, Array, Array, Array]:
    """The arguments of `calibrate_factor` from two tables; raises DataError."""
    found = []
    for path in (benign, attacked):
        # An account 007 is none of 7.
        table = Columns(path, texts=[by])
        for name in (column, by):
            if name not in table:
                hint = did_you_mean(name, list(table))
                raise DataError(f"{path} has no column {name!r}{hint or ''}; name one that it has")
        found += [table[column], _accounts(table, by)]
    return found[0], found[1], found[2], found[3]


def _accounts(table: Columns, by: str) -> Array:
    """The accounts (n,) as texts, none of them missing."""
    told = table[by].tolist()
    for row, one in enumerate(told):
        if one is None or one != one or one == "":
            raise DataError(f"{table.path} has no {by} in row {row}; fill it in, or drop such rows")
    return np.array([label_of(one) for one in told], np.str_)


def _values(given: ArrayLike, what: str) -> Array:
    values = np.asarray(given).ravel()
    if values.dtype.kind not in "iuf":
        raise DataError(f"the {what} values are {values.dtype}; a factor is for numbers")
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"the {what} value in row {row} is {values[row]:g}; a factor needs values above 0, so "
            "drop those rows"
        )
    return values.astype(np.float64)


def _median(parts: list[Array], confidence: float, draw: np.random.Generator) -> Interval:
    """The median of all, with the bootstrap over the parts."""
    joined = np.concatenate(parts)
    size = np.array([len(part) for part in parts])
    order = np.argsort(joined, kind="stable")
    owner = np.repeat(np.arange(len(parts)), size)[order]
    ranked = joined[order]
    medians = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        drawn = draw.integers(0, len(parts), (_AT_ONCE, len(parts)))
        weight = np.stack([np.bincount(one, minlength=len(parts)) for one in drawn])
        total = np.cumsum(weight[:, owner], axis=1)
        last = total[:, -1:]
        places = [(total < half).sum(1) for half in ((last + 1) // 2, last // 2 + 1)]
        medians.append((ranked[places[0]] + ranked[places[1]]) / 2)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=float(np.median(joined)), low=float(low), high=float(high), n=len(joined))
