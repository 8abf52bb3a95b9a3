"""A rule for each element of the inputs that hold bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..wire import Inference, Named


def each(asked: Inference, name: str, apply: Callable[[bytes, str], bytes]) -> Inference:
    """The request with apply(element, input's name) for each of the input `name`, "" for all."""
    inputs = tuple(
        _one(named, apply) if named.datatype == "BYTES" and name in ("", named.name) else named
        for named in asked.inputs
    )
    same = all(one is old for one, old in zip(inputs, asked.inputs, strict=True))
    return asked if same else replace(asked, inputs=inputs)


def _one(named: Named, apply: Callable[[bytes, str], bytes]) -> Named:
    old = named.values.ravel()
    new = [apply(part, named.name) for part in old]
    if all(one == part for one, part in zip(new, old, strict=True)):
        return named
    values = np.empty(len(new), object)
    values[:] = new
    return named.holding(values.reshape(named.values.shape))
