"""Requests that are rows without datatypes: KServe v1 and MLflow."""

from __future__ import annotations

from typing import Any, Literal

import orjson

from ._canonical import Forwarded
from ._error import RequestError
from ._inference import Array, Inference, Limits, Named
from ._json import Text, members

RowFormat = Literal["v1", "mlflow"]
_KEYS = {"v1": ("instances",), "mlflow": ("inputs", "instances", "dataframe_split")}
_FRAME = frozenset(("columns", "data", "index"))


def read_rows(body: bytes, form: RowFormat, limits: Limits) -> Inference:
    """The request in a body of KServe v1 (`instances`) or MLflow (`inputs` or a split data frame).

    Its numbers are one input, named as the key, of type INT64 where all are whole ones, else FP64;
    the columns' names are a parameter. Raises RequestError for other keys, rows of unequal length
    and what is no number.
    """
    if len(body) > limits.body:
        raise RequestError(413, "too_large", f"the body has more than {limits.body} bytes")
    text = Text(body)
    content = members(text.root, "the body")
    if len(content) != 1 or next(iter(content)) not in _KEYS[form]:
        raise RequestError(
            400, "form", f"the body must be an object with {' or '.join(_KEYS[form])}"
        )
    ((key, told),) = content.items()
    columns: tuple[str, ...] = ()
    if key == "dataframe_split":
        columns, told = _split(text, told)
    values = _numbers(text, told, limits)
    if columns and values.shape[1:] != (len(columns),):
        raise RequestError(400, "data", "the rows do not have as many values as there are columns")
    parameters = {"columns": columns} if columns else {}
    datatype = "FP64" if values.dtype.kind == "f" else "INT64"
    named = Named(name=key, datatype=datatype, values=values, parameters=parameters)
    return Inference(id="", inputs=(named,), parameters={})


def write_rows(asked: Inference) -> Forwarded:
    """The request in the format that it came in, from what was inspected and no more."""
    (named,) = asked.inputs
    told: Any = named.values
    if "columns" in named.parameters:
        told = {"columns": list(named.parameters["columns"]), "data": named.values}
    body = orjson.dumps({named.name: told}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Forwarded(body, {"content-type": "application/json"})


def _split(text: Text, told: Any) -> tuple[tuple[str, ...], Any]:
    found = members(told, "dataframe_split", _FRAME)
    columns = text.elements(found.get("columns"))
    if (
        not columns
        or not all(isinstance(name, str) for name in columns)
        or len(set(columns)) < len(columns)
    ):
        raise RequestError(400, "form", "columns must be texts, each once")
    if "index" in found:
        # Not passed on, so that nothing in it needs to be looked at.
        text.elements(found["index"])
    return tuple(columns), found.get("data")


def _numbers(text: Text, told: Any, limits: Limits) -> Array:
    try:
        try:
            # Servers may want whole numbers as such.
            found = text.numbers(told, "i")
        except ValueError:
            found = text.numbers(told, "d")
        text.close()
    except ValueError:
        raise RequestError(
            400, "data", "the rows must be numbers, all of the same length"
        ) from None
    if found.ndim > limits.axes or found.size > limits.elements:
        raise RequestError(
            413, "too_large",
            f"the rows have more than {limits.elements} elements or {limits.axes} axes",
        )  # fmt: skip
    return found
