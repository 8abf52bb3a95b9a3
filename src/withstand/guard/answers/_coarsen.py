"""Answers that tell less: whoever searches by scores or copies a model learns less from each."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from .._message import Answer
from ._answered import Answered, Array, Output

_LENGTH = b"inference-header-content-length"
_CLASS = re.compile(r"(-?\d+\.?\d*(?:[eE][+-]?\d+)?)(:\d+(?::.*)?)", re.DOTALL)


def coarsened(answered: Answered, digits: int, *, top: int = 0) -> Answer:
    """The answer with so many digits of each score left, 0 for the class alone.

    top: so many of each row's highest scores are left, 0 for all. The class with the highest score
    keeps it, alone: where rounding makes it even with others, they are told as a little less, or it
    as more. It stays in the form in which the model gave it, binary or JSON, with all names. An
    answer without scores is left as it is: there is nothing to take away from a class.
    """
    outputs = [_output(one, digits, top) for one in answered.outputs]
    same = all(one is old for one, old in zip(outputs, answered.outputs, strict=True))
    if answered.form != "v2":
        told = _predictions(answered, outputs[0] if outputs else None, digits, top)
        return answered.answer if told is None else _written(answered, told, [])
    if same:
        return answered.answer
    return _written(
        answered,
        {**answered.told, "outputs": [one.told for one in outputs]},
        [one.part for one in outputs if one.part is not None],
    )


def _written(answered: Answered, told: dict[str, Any], parts: list[bytes]) -> Answer:
    head = orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [
        pair for pair in answered.answer.headers if pair[0] not in (b"content-type", _LENGTH)
    ]
    if parts:
        kind, length = b"application/octet-stream", [(_LENGTH, str(len(head)).encode())]
    else:
        kind, length = b"application/json", []
    headers = [(b"content-type", kind), *length, *headers]
    return Answer(answered.answer.status, headers, b"".join((head, *parts)))


def _output(output: Output, digits: int, top: int) -> Output:
    if output.values.dtype.kind == "f":
        return _numbers(output, less(output.values, digits, top))
    if output.datatype != "BYTES":
        return output
    if output.part is None:
        data = output.told["data"]
        coarse = _classes(data, digits)
        return output if coarse == data else output._replace(told={**output.told, "data": coarse})
    part = _raw_classes(output.part, digits)
    if part == output.part:
        return output
    parameters = {**output.told["parameters"], "binary_data_size": len(part)}
    return output._replace(told={**output.told, "parameters": parameters}, part=part)


def _numbers(output: Output, values: Array) -> Output:
    if output.part is None:
        told = {**output.told, "data": values.ravel()}
        return output._replace(values=values, told=told)
    return output._replace(values=values, part=values.tobytes())


def less(values: Array, digits: int, top: int = 0) -> Array:
    """Scores with so many digits, and of each row (B, K) the highest `top`.

    digits 0: 1 for the highest of each row and 0 else.
    """
    if values.ndim < 2 or values.shape[-1] < 2:
        return _rounded(values, digits).astype(values.dtype)
    rows = values.reshape(-1, values.shape[-1])
    if not digits:
        best = rows.argmax(1, keepdims=True)
        return np.asarray(np.arange(rows.shape[1]) == best, values.dtype).reshape(values.shape)
    found = _distinct(rows, _rounded(rows, digits), digits)
    if 0 < top < rows.shape[1]:
        found = _highest(rows, found, digits, top).clip(*_ends(values.dtype))
    return found.astype(values.dtype).reshape(values.shape)


def _ends(dtype: np.dtype[Any]) -> tuple[float, float]:
    return float(np.finfo(dtype).min), float(np.finfo(dtype).max)


def _rounded(values: Array, digits: int) -> Array:
    exact = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        found = exact.round(digits)
    return np.asarray(np.where(np.isfinite(found), found, exact))


def _distinct(rows: Array, rounded: Array, digits: int) -> Array:
    """Rounded rows (B, K) in which no other class comes up to the one that was highest."""
    step = 10.0**-digits
    best = rows.argmax(1)[:, None]
    highest = np.take_along_axis(rounded, best, 1)
    even = (rounded == highest) & (np.arange(rows.shape[1]) != best)
    # Shares stay at 0 or above: the others give way where they can.
    lower = highest >= step / 2
    found = np.where(even & lower, rounded - step, rounded)
    raised = np.where(even.any(1, keepdims=True) & ~lower, highest + step, highest)
    np.put_along_axis(found, best, raised, 1)
    return np.asarray(found.round(digits))


def _highest(rows: Array, found: Array, digits: int, top: int) -> Array:
    """Rows with their highest scores, and in the place of the others something lower."""
    order = np.argsort(-rows, 1, kind="stable")
    kept = np.zeros(rows.shape, bool)
    np.put_along_axis(kept, order[:, :top], True, 1)
    lowest = np.where(kept, found, np.inf).min(1, keepdims=True)
    below = lowest - np.maximum(10.0**-digits, np.abs(lowest))
    rest = np.where((lowest > 0) | (rows.min(1, keepdims=True) >= 0), 0.0, below)
    return np.asarray(np.where(kept, found, rest))


def _predictions(
    answered: Answered, output: Output | None, digits: int, top: int
) -> dict[str, Any] | None:
    """Predictions in which each number, or list of numbers, tells less; None if none does."""
    told = answered.told
    if output is None or "predictions" not in told:
        return None
    kind = output.values.dtype.kind
    if kind == "f":
        return {**told, "predictions": output.values.tolist()}
    if kind in "iub" and output.values.size:
        return None
    coarse = _value(told["predictions"], digits, top)
    return None if coarse == told["predictions"] else {**told, "predictions": coarse}


def _value(value: Any, digits: int, top: int) -> Any:
    if isinstance(value, float):
        return float(_rounded(np.asarray(value), digits))
    if isinstance(value, dict):
        return {key: _value(part, digits, top) for key, part in value.items()}
    if not isinstance(value, list):
        return value
    numeric = all(isinstance(part, int | float) and not isinstance(part, bool) for part in value)
    if numeric and any(isinstance(part, float) for part in value):
        return less(np.asarray([value], np.float64), digits, top)[0].tolist()
    return [_value(part, digits, top) for part in value]


def _classes(data: Any, digits: int) -> Any:
    """Texts SCORE:INDEX:LABEL of the classification extension, with less of the score."""
    if isinstance(data, list):
        return [_classes(part, digits) for part in data]
    match = _CLASS.fullmatch(data) if isinstance(data, str) else None
    return f"{float(match[1]):.{digits}f}{match[2]}" if match else data


def _raw_classes(part: bytes, digits: int) -> bytes:
    """The same in the protocol's raw form: a length of 4 bytes before each."""
    found, place = [], 0
    while place < len(part):
        end = place + 4 + int.from_bytes(part[place : place + 4], "little")
        text = _classes(part[place + 4 : end].decode("utf-8", "surrogateescape"), digits)
        found.append(text.encode("utf-8", "surrogateescape"))
        place = end
    return b"".join(len(one).to_bytes(4, "little") + one for one in found)
