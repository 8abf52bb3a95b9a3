"""A data set in memory, with word of where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import DataError, did_you_mean, listed, one_line
from ..threat.tabular import Table

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where data comes from and what exactly it is.

    digest: sha256 (hex) over dtype, shape, bytes of x and y as loaded; n: rows; shape: of one row.
    """

    name: str
    source: str
    licence: str
    digest: str
    n: int
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Inputs x, float32 (N, ...), and labels y, as `from_arrays` makes and checks them.

    y: int64 (N,) for classes, float32 (N,) for regression, float32 (N, K) for multi-label;
    groups: (N,), the user behind each row. table: what the columns are, where that is told.
    others: rows (M, ...) and labels (M,) of classes that are not looked at, but that there are.
    """

    x: Array
    y: Array
    provenance: Provenance
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    groups: Array | None = None
    table: Table | None = None
    others: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        about = self.provenance
        labels = "" if self.classes is None else f", classes={list(self.classes)}"
        return f"Dataset({about.name!r}, n={about.n}, shape={about.shape}{labels})"

    def take(self, indices: ArrayLike) -> Dataset:
        """Some rows, by indices or a mask (N,); the provenance tells their own digest."""
        rows = np.atleast_1d(np.asarray(indices))
        if rows.size == 0:
            raise DataError("no rows are taken; give at least one index")
        try:
            if rows.ndim != 1:
                raise IndexError
            x, y = self.x[rows], self.y[rows]
        except IndexError:
            raise DataError(
                f"these indices do not fit {len(self)} rows; give whole numbers from 0 to "
                f"{len(self) - 1}, or a mask with one value for each row"
            ) from None
        return replace(
            self,
            x=x,
            y=y,
            provenance=replace(self.provenance, digest=_digest(x, y), n=len(x)),
            groups=None if self.groups is None else self.groups[rows],
        )

    def head(self, n: int) -> Dataset:
        """The first n rows, or all if there are fewer."""
        if n < 1:
            raise DataError(f"head is asked for {n} rows; give at least 1")
        return self.take(np.arange(n)) if n < len(self) else self


def from_arrays(
    x: ArrayLike,
    y: ArrayLike,
    *,
    name: str = "arrays",
    source: str = "memory",
    licence: str = "unknown",
    classes: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    values: bool = False,
    table: Table | None = None,
) -> Dataset:
    """A data set of arrays x (N, ...) and y (N,) or (N, K); raises DataError for what does not fit.

    Whole numbers are classes also when stored as floats; text becomes indices into `classes`, which
    are sorted if not given. values: y is a regression's, and stays float32 even if it is whole.
    """
    inputs = to_float32(_array(x, "x"))
    if inputs.ndim < 2:
        raise DataError(f"x has shape {inputs.shape}; give one row per sample, (N, ...)")
    labels, names = encode(
        _array(y, "y"), None if classes is None else tuple(classes), values=values
    )
    users = None if groups is None else _groups(_array(groups, "groups"))
    check_lengths(inputs, labels, users)
    if inputs.size == 0:
        raise DataError(f"x is empty, shape {inputs.shape}; give at least one row and one feature")
    columns = None if features is None else tuple(features)
    if columns is not None and (inputs.ndim != 2 or len(columns) != inputs.shape[1]):
        raise DataError(
            f"{len(columns)} feature names for x of shape {inputs.shape}; name each of its columns"
        )
    check_finite(inputs, columns)
    provenance = Provenance(
        name=name,
        source=source,
        licence=licence,
        digest=_digest(inputs, labels),
        n=len(inputs),
        shape=inputs.shape[1:],
    )
    return Dataset(
        x=inputs,
        y=labels,
        provenance=provenance,
        classes=names,
        features=columns,
        groups=users,
        table=table,
    )


def _array(told: ArrayLike, name: str) -> Array:
    try:
        return np.asarray(told)
    except (RuntimeError, TypeError, ValueError) as error:
        # A tensor that requires gradients, or rows of several lengths.
        raise DataError(f"{name} is no array: {one_line(error)}; give a numpy array") from None


def check_lengths(x: Array, y: Array, groups: Array | None) -> None:
    """Raise DataError unless there is one label and one group for each row of x."""
    for name, rows in (("y", y), ("groups", groups)):
        if rows is not None and x.ndim and rows.ndim and len(rows) != len(x):
            raise DataError(
                f"x has {len(x)} rows but {name} has {len(rows)}; give one for each row"
            )


def _digest(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()


def to_float32(x: Array) -> Array:
    """Numbers as float32; those beyond its range become infinite."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"x holds {x.dtype}, not numbers; convert it to float32 or uint8")
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float32, order="C")


def check_finite(x: Array, features: tuple[str, ...] | None) -> None:
    """Raise DataError where x has values that are not finite, with the features and rows."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return
    rows = np.flatnonzero(bad.reshape(len(x), -1).any(1))
    of = ""
    if features is not None:
        of = f" of {listed((features[i] for i in np.flatnonzero(bad.any(0))), 5)}"
    raise DataError(
        f"x has {bad.sum()} NaN or infinite float32 values{of} in {len(rows)} of {len(x)} rows, "
        f"first in row {rows[0]}; fill them in or drop those rows"
    )


def encode(
    y: Array, classes: tuple[str, ...] | None, *, values: bool = False
) -> tuple[Array, tuple[str, ...] | None]:
    """Labels in the form that Dataset promises, with the class names if there are any."""
    if y.ndim == 0:
        raise DataError(f"y is a single {y.dtype} value; give one label for each row (N,)")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "O":
        y = _plain(y, "y")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "U":
        return _index(y, classes)
    if y.dtype.kind not in "biuf":
        raise DataError(f"y holds {y.dtype}, not labels; give whole numbers, text or floats")
    if y.ndim > 2:
        raise DataError(f"y has shape {y.shape}; give (N,), or (N, K) for several labels")
    numbers = y.astype(np.float64)
    if bad := int((~np.isfinite(numbers)).sum()):
        first = np.argwhere(~np.isfinite(numbers))[0][0]
        raise DataError(
            f"y has {bad} NaN or infinite values, first in row {first}; drop those rows"
        )
    if y.ndim == 2 or values:
        return _narrow(y), classes
    if y.dtype.kind == "f" and (numbers != np.round(numbers)).any():
        if classes is not None:
            raise DataError(
                f"y holds fractions such as {numbers[numbers != np.round(numbers)][0]:g}, but "
                "classes are named; give whole numbers, or no classes"
            )
        return _narrow(y), classes
    if len(numbers) and np.abs(numbers).max() >= 2**63:
        raise DataError(f"y reaches {np.abs(numbers).max():g}; labels stay below 2^63")
    whole = y.astype(np.int64)
    if classes is not None and len(whole) and not 0 <= whole.min() <= whole.max() < len(classes):
        raise DataError(
            f"y runs from {whole.min()} to {whole.max()}, but there are {len(classes)} classes; "
            f"give labels from 0 to {len(classes) - 1}, or name all classes"
        )
    return whole, classes


def _narrow(y: Array) -> Array:
    with np.errstate(over="ignore"):
        narrow = y.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise DataError(f"y reaches {np.abs(y).max():g}, beyond float32; rescale it")
    return narrow


def _index(y: Array, classes: tuple[str, ...] | None) -> tuple[Array, tuple[str, ...]]:
    if y.ndim != 1:
        raise DataError(f"y is text of shape {y.shape}; give one class name for each row (N,)")
    names, index = np.unique(y, return_inverse=True)
    if classes is None:
        return index.astype(np.int64), tuple(str(name) for name in names)
    place = {name: i for i, name in enumerate(classes)}
    for name in names:
        if name not in place:
            raise DataError(
                f"y has the class {str(name)!r}, which is not named"
                f"{did_you_mean(name, classes) or ';'} the classes are {listed(classes)}"
            )
    order = np.array([place[str(name)] for name in names], np.int64)
    return order[index] if len(index) else index.astype(np.int64), classes


def _plain(values: Array, name: str) -> Array:
    """An object array (as pandas gives) as text or numbers; a missing value is an error."""
    flat = values.ravel().tolist()
    missing = [i for i, v in enumerate(flat) if v is None or v != v]
    if missing:
        raise DataError(
            f"{name} is missing in {len(missing)} of {len(values)} rows, first in row "
            f"{missing[0] * len(values) // len(flat)}; fill it in or drop those rows"
        )
    if all(isinstance(v, str) for v in flat):
        return values.astype(str)
    if all(isinstance(v, bool | int | float | np.number) for v in flat):
        try:
            return np.asarray(values.tolist())
        except (ValueError, OverflowError):
            pass
    kinds = sorted({type(v).__name__ for v in flat})
    raise DataError(f"{name} holds {listed(kinds, 4)}; give only text or only numbers")


def _groups(groups: Array) -> Array:
    if groups.ndim != 1:
        raise DataError(f"groups have shape {groups.shape}; give one for each row (N,)")
    if groups.dtype.kind == "O":
        groups = _plain(groups, "group")
    if groups.dtype.kind == "f" and np.isnan(groups).any():
        row = np.flatnonzero(np.isnan(groups))[0]
        raise DataError(
            f"group is missing in {np.isnan(groups).sum()} of {len(groups)} rows, first in row "
            f"{row}; fill it in or drop those rows"
        )
    return groups
