"""What a request asks, whatever format it came in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._error import RequestError

Array = NDArray[Any]

DATATYPES: dict[str, np.dtype[Any]] = {
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BOOL": np.dtype("?"),
}
"""Types of tensors by their names in the Open Inference Protocol; text is BYTES."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a request may be.

    body: bytes; inputs: tensors; elements: of all of them together; axes: of one; text: bytes of
    one element of type BYTES; parameters: of the request and of each input and output.
    """

    body: int = 16 * 2**20
    inputs: int = 16
    elements: int = 4 * 2**20
    axes: int = 8
    text: int = 65_536
    parameters: int = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Named:
    """One input: numbers, or text as an array of bytes objects, of the datatype that was told.

    parameters: plain values by name, those of the transport left out. ends: the lowest and highest
    number, where they are known already.
    """

    name: str
    datatype: str
    values: Array
    parameters: dict[str, Any]
    ends: tuple[float, float] | None = None

    def holding(self, values: Array) -> Named:
        """The input with other values."""
        return replace(self, values=values, ends=None)

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest of its numbers, NaN if one is; not for text."""
        return self.ends or ends_of(self.values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inference:
    """A request in full: all that is known of it and all that is forwarded.

    outputs: wanted ones by name with their parameters, empty for all. binary: the answer is wanted
    as raw bytes.
    """

    id: str
    inputs: tuple[Named, ...]
    outputs: tuple[tuple[str, dict[str, Any]], ...] = ()
    parameters: dict[str, Any]
    binary: bool = False


def ends_of(values: Array) -> tuple[float, float]:
    """The lowest and the highest of some numbers, NaN if one is."""
    # For small inputs where they are takes a third of the time of what they are; both find NaN.
    return float(values.item(values.argmin())), float(values.item(values.argmax()))


def check_finite(named: Named) -> None:
    """Raises RequestError for NaN and infinity, which few models survive."""
    if named.values.dtype.kind == "f" and not all(map(isfinite, named.span)):
        raise RequestError(400, "not_finite", f"input {named.name!r} holds NaN or infinity")
