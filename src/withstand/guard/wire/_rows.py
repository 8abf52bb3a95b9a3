"""Requests that are rows without datatypes: KServe v1 and MLflow."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import orjson

from ._canonical import Forwarded
from ._error import RequestError
from ._inference import Array, Inference, Limits, Named
from ._json import Text, is_list, members

RowFormat = Literal["v1", "mlflow"]
_KEYS = {
    "v1": ("instances",),
    "mlflow": ("inputs", "instances", "dataframe_split", "dataframe_records"),
}
# To read a record takes as long as so many elements of a list.
_RECORD = 8
_FRAME = frozenset(("columns", "data", "index"))


def read_rows(body: bytes, form: RowFormat, limits: Limits) -> Inference:
    """The request in a body of KServe v1 (`instances`) or MLflow (`inputs` or a data frame).

    Its numbers are one input, named as the key, of type INT64 where all are whole ones, else FP64;
    the columns' names are a parameter. A frame in records becomes a split one. Raises RequestError
    for other keys, rows of unequal length or with other columns, and what is no number.
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
    if key == "dataframe_records":
        key, columns, values = "dataframe_split", *_records(told, limits)
    else:
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


def _records(told: Any, limits: Limits) -> tuple[tuple[str, ...], Array]:
    count = len(told) if is_list(told) else 0
    rows: list[dict[str, Any]] = []
    # One by one: what is refused is refused before all of it has been read.
    for one in told if count else ():
        rows.append(members(one, "a record"))
        if not rows[0] or rows[-1].keys() != rows[0].keys():
            raise RequestError(400, "form", "records must be objects with the same columns")
        if count * (len(rows[0]) + _RECORD) > limits.elements:
            raise _too_large(limits)
    if not rows:
        raise RequestError(400, "form", "records must be objects with the same columns")
    columns = tuple(rows[0])
    flat = [row[column] for row in rows for column in columns]
    # A truth value is no number here, though it is one in Python.
    if not all(type(value) in (int, float) for value in flat):
        raise RequestError(400, "data", "the rows must be numbers")
    whole = all(type(value) is int and -(2**63) <= value < 2**63 for value in flat)
    values = np.array(flat, np.int64 if whole else np.float64)
    return columns, values.reshape(len(rows), -1)


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
        raise _too_large(limits)
    return found


def _too_large(limits: Limits) -> RequestError:
    return RequestError(
        413, "too_large",
        f"the rows have more than {limits.elements} elements or {limits.axes} axes",
    )  # fmt: skip
