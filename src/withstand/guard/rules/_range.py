"""The values that an input may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._errors import ConfigError
from ..wire import Inference, Named, RequestError

Array = NDArray[Any]
Limit = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Lowest and highest value of inputs by name, "" for those not named.

    A limit is a number, or a tuple with one for each feature of the last axis; it counts as the
    nearest number of the input's own datatype. outside: what becomes of values beyond: the request
    is refused (RequestError 400), or they are clipped. Some 2 microseconds for 784 values.
    """

    limits: Mapping[str, tuple[Limit, Limit]]
    outside: Literal["refuse", "clip"] = "refuse"

    def __post_init__(self) -> None:
        for name, (low, high) in self.limits.items():
            if not np.all(np.asarray(low) <= np.asarray(high)):
                raise ConfigError(f"the range of {name!r} is {low} to {high}; give low before high")

    def __call__(self, asked: Inference) -> Inference:
        """The request with each value in its range; raises RequestError."""
        inputs, same = [], True
        for named in asked.inputs:
            inputs.append(self._one(named))
            same = same and inputs[-1] is named
        return asked if same else replace(asked, inputs=tuple(inputs))

    def _one(self, named: Named) -> Named:
        limits = self.limits.get(named.name) or self.limits.get("")
        values = named.values
        if limits is None or values.dtype.kind not in "iuf":
            return named
        low, high = _bounds(*limits, values.dtype)
        if isinstance(low, np.ndarray):
            if low.size != values.shape[-1]:
                raise RequestError(
                    400, "range", f"input {named.name!r} must have {low.size} features"
                )
            inside = not ((values < low).any() or (values > high).any())
        elif values.dtype.kind == "f":
            lowest, highest = named.span
            inside = low <= lowest and highest <= high
        else:
            # Large whole numbers would be rounded as floats.
            inside = low <= values.min().item() and values.max().item() <= high
        if inside:
            return named
        if self.outside == "refuse":
            where = (
                "of its features" if isinstance(low, np.ndarray) else f"{low:.12g} to {high:.12g}"
            )
            raise RequestError(
                400, "range", f"input {named.name!r} has values outside the range {where}"
            )
        return named.holding(np.clip(values, low, high))


@lru_cache(maxsize=256)
def _bounds(lowest: Limit, highest: Limit, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The limits in a datatype, so that what is clipped once is inside: two numbers or arrays."""
    ends = np.broadcast_arrays(np.asarray(lowest, np.float64), np.asarray(highest, np.float64))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            low, high = (end.astype(dtype) for end in ends)
    else:
        low, high = _whole(np.ceil(ends[0]), dtype, max), _whole(np.floor(ends[1]), dtype, min)
    if (low > high).any():
        raise RequestError(400, "range", "no whole number is in the range of the input")
    if low.ndim:
        return low.astype(dtype), high.astype(dtype)
    return low.item(), high.item()


def _whole(ends: Array, dtype: np.dtype[Any], inner: Callable[[int, int], int]) -> Array:
    """Whole ends, moved inward to those of the datatype."""
    info = np.iinfo(dtype)
    end = int(info.min) if inner is max else int(info.max)
    # As Python's numbers, of which each has a place: float64 has no largest int64.
    found = [inner(int(max(min(one, 1e20), -1e20)), end) for one in ends.ravel()]
    return np.asarray(found, object).reshape(ends.shape)
