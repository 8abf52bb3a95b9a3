"""Rows of a table keep the rules that the table's file tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Capability
from ..wire import Inference, Named, RequestError


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Ranges, grids, categories, choices, derived columns and relations of the rows of inputs.

    capabilities: by the input's name, "" for those not named; what an attacker could do is not
    looked at. The request is refused (RequestError 400) without word of the rule, which would teach
    a forger. Some 10 microseconds for each rule and request.
    """

    capabilities: dict[str, Capability]

    def __call__(self, asked: Inference) -> Inference:
        """The request as it is; raises RequestError where a row breaks a rule."""
        for named in asked.inputs:
            capability = self.capabilities.get(named.name) or self.capabilities.get("")
            if capability is not None and named.values.dtype.kind in "biuf":
                _check(named, capability)
        return asked


def _check(named: Named, capability: Capability) -> None:
    count = len(capability.features)
    if named.values.ndim < 2 or named.values.shape[-1] != count:
        raise RequestError(400, "table", f"input {named.name!r} must have rows of {count} columns")
    told = named.parameters.get("columns")
    if told is not None and list(told) != [one.name for one in capability.features]:
        # A server that knows columns by name would see another row than the one that is looked at.
        raise RequestError(400, "table", f"input {named.name!r} must name the columns in order")
    # As the model sees them: in single precision 0.1 is above 0.1.
    rows: NDArray[Any] = named.values.reshape(-1, count).astype(np.float32)
    wrong = np.flatnonzero(~capability.contains(rows, rows))
    if len(wrong):
        raise RequestError(
            400, "table", f"row {wrong[0]} of input {named.name!r} is none that there can be"
        )
