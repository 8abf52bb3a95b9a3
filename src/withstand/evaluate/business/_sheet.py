"""Fooled rows as a file that a spreadsheet opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError, one_line
from ...threat.tabular import Table
from ._weakness import text_of

Array = NDArray[Any]
# A spreadsheet runs text that begins so as a formula; the last four are their wide forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = "'"


def sheet(facts: Mapping[str, Sequence[object]], columns: Mapping[str, Array]) -> str:
    """Facts (N,) about rows and then their columns (N,), by name, as CSV; None is empty.

    Every text stands in quotes, and one that a spreadsheet would take for a formula begins with an
    apostrophe, as does one that begins with an apostrophe itself. A fact named like a column gets
    an underscore. `read_sheet` reads it back.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    named = {_free(name, columns): list(values) for name, values in facts.items()}
    every = {**named, **{name: column.tolist() for name, column in columns.items()}}
    writer.writerow([_cell(name) for name in every])
    writer.writerows([_cell(value) for value in row] for row in zip(*every.values(), strict=True))
    return out.getvalue()


def read_sheet(path: str | Path, table: Table) -> NDArray[np.float32]:
    """The rows (N, F) of an adversarial.csv, identical to those that it was written from.

    Raises DataError for a file that is none, and as `Table.encode` does.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({one_line(error, 80)}); give an adversarial.csv"
        ) from None
    if any(len(line) != len(head) for line in lines):
        raise DataError(f"{path} has rows of other lengths than its header; write it again")
    columns = {
        _plain(name): np.array([_plain(line[place]) for line in lines], object)
        for place, name in enumerate(head)
    }
    return table.encode(columns)


def _free(name: str, taken: Mapping[str, Array]) -> str:
    while name in taken:
        name += "_"
    return name


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else ""
    text = text_of(value)
    return _QUOTE + text if text.startswith((*_FORMULA, _QUOTE)) else text


def _plain(text: str) -> str:
    return text.removeprefix(_QUOTE)
