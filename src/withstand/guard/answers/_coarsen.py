"""Answers that tell less: whoever searches by scores or copies a model learns less from each."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from .._message import Answer
from ._answered import Answered, Array, Output


def coarsened(answered: Answered, digits: int) -> Answer:
    """The answer with so many digits of each score left, 0 for the class alone, as JSON.

    An answer without scores is left as it is: there is nothing to take away from a class.
    """
    if answered.scores is None:
        return answered.answer
    outputs = [output._replace(values=_less(output.values, digits)) for output in answered.outputs]
    told: dict[str, Any] = dict(answered.told)
    if answered.form == "v2":
        told["outputs"] = [_written(output) for output in outputs]
    else:
        told = {"predictions": outputs[0].values.tolist()}
    kept = [
        (name, value)
        for name, value in answered.answer.headers
        if name not in (b"content-type", b"inference-header-content-length")
    ]
    headers = [(b"content-type", b"application/json"), *kept]
    return Answer(answered.answer.status, headers, orjson.dumps(told))


def _less(values: Array, digits: int) -> Array:
    if values.dtype.kind != "f":
        return values
    if digits or values.ndim != 2:
        return np.asarray(values.round(digits))
    best = values.argmax(1, keepdims=True)
    return np.asarray(np.arange(values.shape[1]) == best, values.dtype)


def _written(output: Output) -> dict[str, Any]:
    return {
        "name": output.name,
        "shape": list(output.values.shape),
        "datatype": output.datatype,
        "data": output.values.ravel().tolist(),
    }
