"""Requests as they are inspected, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from withstand.guard.wire import DATATYPES, Inference, Named, RequestError


def asked(*inputs: Named, **more: Any) -> Inference:
    return Inference(**{"id": "", "inputs": inputs, "parameters": {}, **more})


def named(values: Any, name: str = "x", datatype: str = "FP32", **parameters: Any) -> Named:
    kind = object if datatype == "BYTES" else DATATYPES[datatype]
    return Named(
        name=name, datatype=datatype, values=np.asarray(values, kind), parameters=parameters
    )


def held(*parts: bytes) -> Inference:
    return asked(named(list(parts), datatype="BYTES"))


def only(found: Inference) -> Any:
    return found.inputs[0].values


def refused(rule: Any, request: Inference, match: str, status: int = 400) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        rule(request)
    assert caught.value.status == status
