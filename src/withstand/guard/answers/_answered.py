"""What the model server answered, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from .._message import Answer, UpstreamError
from .._routes import Form
from ..wire import DATATYPES
from ._error import plain_error

Array = NDArray[Any]

_LENGTH = b"inference-header-content-length"
_FEW = 64
_NOTHING = memoryview(b"")


class Output(NamedTuple):
    """One output: numbers, or an empty array where it holds text.

    told: what the answer's JSON says of it; part: its raw bytes, where it came as such.
    """

    name: str
    datatype: str
    values: Array
    told: Mapping[str, Any] = MappingProxyType({})
    part: bytes | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """An answer with its outputs; none where the server answered with another status than 200.

    told: the answer's JSON, of v2 without its outputs.
    """

    answer: Answer
    form: Form
    outputs: tuple[Output, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)

    # Not cached: until Python 3.12 that takes a lock, and longer than the search.
    @property
    def scores(self) -> Array | None:
        """Scores (B, K) of the first output that has as much as two floats a row."""
        for output in self.outputs:
            values = output.values
            if values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind == "f":
                return values
        return None

    def highest(self, rows: int = 4, classes: int = 3) -> list[list[list[float]]]:
        """The highest scores of the first rows as [class, score], for evidence; empty without."""
        scores = self.scores
        if scores is None:
            return []
        found = []
        for row in (scores if len(scores) <= rows else scores[:rows]).tolist():
            places = range(len(row))
            if len(row) > _FEW:
                best = nlargest(classes, places, key=row.__getitem__)
            else:
                best = sorted(places, key=row.__getitem__, reverse=True)[:classes]
            found.append([[one, float(f"{row[one]:.4g}")] for one in best])
        return found

    @property
    def labels(self) -> Array | None:
        """The classes (B,) that the answer names, by its scores or by whole numbers."""
        scores = self.scores
        if scores is not None:
            return np.asarray(scores.argmax(1))
        for values in (output.values for output in self.outputs):
            if values.size == len(values) and values.dtype.kind in "iu":
                return values.ravel()
        return None

    def first(self) -> tuple[int | None, float | None]:
        """The class of the first row and its score, None for what the answer does not have."""
        labels, scores = self.labels, self.scores
        if labels is None or not len(labels):
            return None, None
        label = int(labels[0])
        return label, None if scores is None else float(scores[0, label])


def read_answer(answer: Answer, form: Form) -> Answered:
    """The outputs of an answer; raises UpstreamError for one that is no answer of its format.

    NaN and infinity are no answer: clients read them differently, or not at all.
    """
    if answer.status != 200:
        return Answered(answer=plain_error(answer), form=form)
    try:
        outputs, told = _v2(answer) if form == "v2" else _predictions(answer.body)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UpstreamError(502, "upstream_lies") from None
    return Answered(answer=answer, form=form, outputs=outputs, told=told)


def _v2(answer: Answer) -> tuple[tuple[Output, ...], dict[str, Any]]:
    length = len(answer.body)
    for name, value in answer.headers:
        if name == _LENGTH:
            length = int(value)
            break
    if not 0 < length <= len(answer.body):
        raise ValueError("length")
    whole = length == len(answer.body)
    content = orjson.loads(answer.body if whole else answer.body[:length])
    tail = _NOTHING if whole else memoryview(answer.body)[length:]
    found = []
    for told in content.pop("outputs"):
        name, datatype, shape = told["name"], told["datatype"], tuple(told["shape"])
        size = (told.get("parameters") or {}).get("binary_data_size")
        part, tail = (None, tail) if size is None else (bytes(tail[:size]), tail[size:])
        found.append(Output(name, datatype, _values(told, part, datatype, shape), told, part))
    if len(tail):
        raise ValueError("bytes of no output")
    return tuple(found), content


def _values(
    told: dict[str, Any], part: bytes | None, datatype: str, shape: tuple[int, ...]
) -> Array:
    if datatype not in DATATYPES:
        return np.empty(0, object)
    if part is not None:
        raw = np.frombuffer(part, DATATYPES[datatype]).reshape(shape)
        # JSON has no such numbers.
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            raise ValueError("NaN or infinity")
        return raw
    values = np.asarray(told["data"])
    if values.dtype.kind not in "biuf" or values.size != prod(shape):
        raise ValueError("data")
    wanted = DATATYPES[datatype]
    # Narrower floats would round what is shown; half precision has no place in JSON.
    return (values if wanted.kind == "f" else values.astype(wanted, copy=False)).reshape(shape)


def _predictions(body: bytes) -> tuple[tuple[Output, ...], dict[str, Any]]:
    content = orjson.loads(body)
    try:
        values = np.asarray(content["predictions"])
    except ValueError:
        values = np.empty(0, object)
    if values.dtype.kind not in "biuf" or not values.ndim:
        values = np.empty(0, object)
    datatype = {"b": "BOOL", "f": "FP64"}.get(values.dtype.kind, "INT64")
    return (Output("predictions", datatype, values),), content
