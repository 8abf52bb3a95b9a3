"""Requests that are rows without datatypes: KServe v1 and MLflow."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from ._canonical import Forwarded
from ._error import RequestError
from ._inference import Array, Inference, Limits, Named, check_finite
from ._json import strict

RowFormat = Literal["v1", "mlflow"]
_KEYS = {"v1": ("instances",), "mlflow": ("inputs", "instances", "dataframe_split")}


class _Frame(NamedTuple):
    columns: tuple[str, ...]


def read_rows(body: bytes, form: RowFormat, limits: Limits) -> Inference:
    """The request in a body of KServe v1 (`instances`) or MLflow (`inputs` or a split data frame).

    Its numbers are one input of type FP64, named as the key, with the columns' names as a
    parameter. Raises RequestError for other keys, rows of unequal length and what is no number.
    """
    if len(body) > limits.body:
        raise RequestError(413, "too_large", f"the body has more than {limits.body} bytes")
    content = strict(body)
    if not isinstance(content, dict) or len(content) != 1 or next(iter(content)) not in _KEYS[form]:
        raise RequestError(
            400, "form", f"the body must be an object with {' or '.join(_KEYS[form])}"
        )
    ((key, told),) = content.items()
    columns: tuple[str, ...] = ()
    if key == "dataframe_split":
        columns, told = _split(told)
    values = _numbers(told, limits)
    if columns and values.shape[1:] != (len(columns),):
        raise RequestError(400, "data", "the rows do not have as many values as there are columns")
    parameters = {"columns": columns} if columns else {}
    named = Named(name=key, datatype="FP64", values=values, parameters=parameters)
    check_finite(named)
    return Inference(id="", inputs=(named,), parameters={})


def write_rows(asked: Inference) -> Forwarded:
    """The request in the format that it came in, from what was inspected and no more."""
    (named,) = asked.inputs
    told: Any = named.values
    if "columns" in named.parameters:
        told = {"columns": list(named.parameters["columns"]), "data": named.values}
    body = orjson.dumps({named.name: told}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Forwarded(body, {"content-type": "application/json"})


def _split(told: Any) -> tuple[tuple[str, ...], Any]:
    if not isinstance(told, dict) or not {"columns", "data"} <= set(told) <= {
        "columns", "data", "index",
    }:  # fmt: skip
        raise RequestError(400, "form", "dataframe_split must have columns and data")
    columns = told["columns"]
    if (
        not isinstance(columns, list)
        or not columns
        or not all(isinstance(name, str) for name in columns)
        or len(set(columns)) < len(columns)
    ):
        raise RequestError(400, "form", "columns must be texts, each once")
    return tuple(columns), told["data"]


def _numbers(told: Any, limits: Limits) -> Array:
    wrong = RequestError(400, "data", "the rows must be numbers, all of the same length")
    try:
        found = np.asarray(told)
    except (ValueError, OverflowError):
        raise wrong from None
    if found.dtype.kind not in "iuf" or not 0 < found.ndim <= limits.axes or not found.size:
        raise wrong
    if found.size > limits.elements:
        raise RequestError(413, "too_large", f"the rows have more than {limits.elements} elements")
    return np.ascontiguousarray(found, np.float64)
