"""What torch trains and tests on: data sets of samples, and loaders of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ._dataset import Dataset
from ._prepare import check_options, prepare

Array = NDArray[Any]


def from_torch(
    samples: Any,
    *,
    limit: int | None = None,
    name: str | None = None,
    source: str = "memory",
    licence: str = "unknown",
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """The rows of a torch Dataset of pairs (x, y), or of a DataLoader of batches of them.

    Inputs are read as they come out of it, transforms included, which draw from `seed`; limit: how
    many rows, the first ones, are read and kept in memory. classes: their names; those that the
    data set tells itself if absent. Raises DataError for what has no such pairs.
    """
    import torch
    from torch.utils.data import DataLoader

    check_options(limit=limit)
    batched = isinstance(samples, DataLoader)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        x, y = _read(samples, batched, limit)
    if classes is None and y.ndim == 1:
        classes = _classes(samples)
    return prepare(
        x, y,
        name=name or type(samples.dataset if batched else samples).__name__,
        source=source,
        licence=licence,
        limit=limit,
        classes=classes,
    )  # fmt: skip


def _read(samples: Any, batched: bool, limit: int | None) -> tuple[Array, Array]:
    inputs: list[Array] = []
    labels: list[Array] = []
    rows = 0
    for number, item in enumerate(_items(samples, None if batched else limit)):
        what = f"{'batch' if batched else 'sample'} {number}"
        x, y = _pair(item, what)
        if not batched:
            x, y = x[None], y[None]
        elif not x.ndim or not y.ndim or len(x) != len(y):
            raise DataError(
                f"{what} has x of shape {x.shape} and y of shape {y.shape}; give one label a row"
            )
        for kind, one, first in (("x", x, inputs), ("y", y, labels)):
            if first and one.shape[1:] != first[0].shape[1:]:
                raise DataError(
                    f"{what} has {kind} of shape {one.shape[1:]}, those before "
                    f"{first[0].shape[1:]}; bring all to one shape"
                )
        inputs.append(x)
        labels.append(y)
        rows += len(x)
        if limit is not None and rows >= limit:
            break
    if not rows:
        raise DataError("the data set has no rows; give at least one")
    return np.concatenate(inputs), np.concatenate(labels)


def _items(samples: Any, limit: int | None) -> Iterator[Any]:
    """Samples or batches in their order; a data set with a length is asked by number."""
    if hasattr(samples, "__getitem__") and hasattr(samples, "__len__"):
        return (samples[i] for i in range(min(len(samples), limit or len(samples))))
    if not isinstance(samples, Iterable):
        raise DataError(
            f"{type(samples).__name__} is no data set; give a torch Dataset or DataLoader"
        )
    return islice(samples, limit)


def _pair(item: Any, what: str) -> tuple[Array, Array]:
    if not isinstance(item, list | tuple) or len(item) != 2:
        form = f"{len(item)} values" if isinstance(item, list | tuple) else type(item).__name__
        raise DataError(f"{what} is {form}; give pairs (x, y)")
    return _array(item[0], f"x of {what}"), _array(item[1], f"y of {what}")


def _array(value: Any, what: str) -> Array:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        # numpy has no numbers of bfloat16.
        value = value.float() if value.is_floating_point() else value
    elif not isinstance(value, np.ndarray | np.generic | int | float | str | list | tuple):
        raise DataError(f"{what} is a {type(value).__name__}; add a transform to a tensor")
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{what} is no array: {one_line(error)}; give a tensor") from None


def _classes(samples: Any) -> list[str] | None:
    """The names that a data set, or the one that it is a part of, gives its classes."""
    while samples is not None:
        told = getattr(samples, "classes", None)
        if isinstance(told, list | tuple) and told:
            return [str(one) for one in told]
        samples = getattr(samples, "dataset", None)
    return None
