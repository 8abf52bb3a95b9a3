"""Requests of the Open Inference Protocol v2, as JSON or with raw tensors behind it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ._error import RequestError
from ._inference import DATATYPES, Array, Inference, Limits, Named, check_finite
from ._json import strict

_TRANSPORT = {"binary_data_size", "binary_data", "binary_data_output"}
_TOP = {"id", "parameters", "inputs", "outputs"}
_INPUT = {"name", "shape", "datatype", "parameters", "data"}
_OUTPUT = {"name", "parameters"}


def read_v2(body: bytes, header_length: str | None, limits: Limits) -> Inference:
    """The request in a body; header_length: the value of Inference-Header-Content-Length, if any.

    Raises RequestError for what the protocol does not allow or parsers disagree about.
    """
    if len(body) > limits.body:
        raise RequestError(413, "too_large", f"the body has more than {limits.body} bytes")
    view = memoryview(body)
    length = len(body) if header_length is None else _length(header_length, len(body))
    # A whole body is not copied: it may be megabytes of JSON.
    text = body if length == len(body) else body[:length]
    content, tail = _mapping(strict(text), "the request", _TOP), view[length:]
    told = content.get("inputs")
    if not isinstance(told, list) or not 0 < len(told) <= limits.inputs:
        raise RequestError(400, "inputs", f"inputs must be a list of 1 to {limits.inputs} tensors")
    room = limits.elements
    inputs = []
    for one in told:
        named, tail = _input(one, tail, room, limits)
        inputs.append(named)
        room -= named.values.size
    if len(tail):
        raise RequestError(400, "raw_bytes", f"{len(tail)} bytes belong to no input")
    names = [named.name for named in inputs]
    if len(set(names)) < len(names):
        raise RequestError(400, "duplicate_name", "two inputs have the same name")
    parameters, transport = _parameters(content, limits)
    identity = content.get("id", "")
    if not isinstance(identity, str) or len(identity) > 256:
        raise RequestError(400, "id", "id must be text of at most 256 characters")
    outputs, raw = _outputs(content.get("outputs", []), limits)
    return Inference(
        id=identity,
        inputs=tuple(inputs),
        outputs=outputs,
        parameters=parameters,
        binary=raw or transport.get("binary_data_output") is True,
    )


def _length(told: str, size: int) -> int:
    if not (told.isascii() and told.isdecimal() and len(told) < 12 and 0 < int(told) <= size):
        raise RequestError(
            400, "header_length", "Inference-Header-Content-Length does not fit the body"
        )
    return int(told)


def _mapping(value: Any, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, "form", f"{what} must be an object")
    for key in value:
        if key not in known:
            raise RequestError(
                400, "unknown_key", f"{what} has a key that the protocol does not know"
            )
    return value


def _input(one: Any, tail: memoryview, room: int, limits: Limits) -> tuple[Named, memoryview]:
    one = _mapping(one, "an input", _INPUT)
    name, datatype = one.get("name"), one.get("datatype")
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise RequestError(400, "name", "an input needs a name of 1 to 256 characters")
    if datatype != "BYTES" and datatype not in DATATYPES:
        raise RequestError(400, "datatype", f"input {name!r} has a datatype that is not known")
    shape = _shape(one.get("shape"), name, room, limits)
    parameters, transport = _parameters(one, limits)
    if "binary_data_size" in transport:
        size = transport["binary_data_size"]
        if type(size) is not int or not 0 <= size <= len(tail) or "data" in one:
            raise RequestError(
                400, "raw_bytes", f"input {name!r} has raw data that do not fit the body"
            )
        values, tail = _raw(tail[:size], datatype, shape, name, limits), tail[size:]
    elif datatype == "BYTES":
        values = _text(one.get("data"), shape, name, limits)
    else:
        values = _numbers(one.get("data"), datatype, shape, name)
    named = Named(name=name, datatype=datatype, values=values, parameters=parameters)
    check_finite(named)
    return named, tail


def _shape(told: Any, name: str, room: int, limits: Limits) -> tuple[int, ...]:
    if (
        not isinstance(told, list)
        or not 0 < len(told) <= limits.axes
        or not all(type(n) is int and n > 0 for n in told)
    ):
        raise RequestError(
            400,
            "shape",
            f"input {name!r} needs a shape of 1 to {limits.axes} whole numbers above 0",
        )
    if prod(told) > room:
        raise RequestError(
            413, "too_large", f"the inputs have more than {limits.elements} elements"
        )
    return tuple(told)


def _parameters(one: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters to be forwarded, and those of the transport, which is ours."""
    told = one.get("parameters", {})
    told = {} if told is None else told
    if not isinstance(told, dict) or len(told) > limits.parameters:
        raise RequestError(
            400, "parameters", f"parameters must be at most {limits.parameters} values"
        )
    for value in told.values():
        if not isinstance(value, str | int | float | bool | None):
            raise RequestError(400, "parameters", "parameters must be plain values")
    kept = {key: value for key, value in told.items() if key not in _TRANSPORT}
    return kept, {key: value for key, value in told.items() if key in _TRANSPORT}


def _outputs(told: Any, limits: Limits) -> tuple[tuple[tuple[str, dict[str, Any]], ...], bool]:
    if not isinstance(told, list) or len(told) > limits.inputs:
        raise RequestError(400, "outputs", f"outputs must be a list of at most {limits.inputs}")
    found, raw = [], False
    for one in told:
        one = _mapping(one, "an output", _OUTPUT)
        name = one.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 256:
            raise RequestError(400, "outputs", "an output needs a name of 1 to 256 characters")
        parameters, transport = _parameters(one, limits)
        raw = raw or transport.get("binary_data") is True
        found.append((name, parameters))
    return tuple(found), raw


def _numbers(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """Numbers from a list, flat or nested exactly as the shape is."""
    if not isinstance(data, list):
        raise _unfit(name)
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError):
        raise _unfit(name) from None
    wanted = DATATYPES[datatype]
    if wanted == np.uint64 and found.dtype.kind == "f":
        # Beside small ones, numbers beyond int64 would be rounded.
        found = _exact(data, name)
    if found.shape not in ((prod(shape),), shape):
        raise _unfit(name)
    if wanted.kind == "f":
        # In lists of one kind truth values become numbers, and stay what was inspected.
        if found.dtype.kind not in "iuf":
            raise _unfit(name)
        with np.errstate(over="ignore"):
            return found.astype(wanted).reshape(shape)
    if wanted.kind == "b":
        if found.dtype.kind != "b":
            raise _unfit(name)
        return found.reshape(shape)
    if found.dtype.kind not in "iu":
        raise _unfit(name)
    info = np.iinfo(wanted)
    if int(found.min()) < info.min or int(found.max()) > info.max:
        raise _unfit(name)
    return found.astype(wanted).reshape(shape)


def _exact(data: list[Any], name: str) -> Array:
    exact = np.asarray(data, object)
    if not all(type(value) is int and 0 <= value < 2**64 for value in exact.ravel()):
        raise _unfit(name)
    return exact.astype(np.uint64)


def _unfit(name: str) -> RequestError:
    return RequestError(
        400, "data", f"the data of input {name!r} do not fit its shape and datatype"
    )


def _text(data: Any, shape: tuple[int, ...], name: str, limits: Limits) -> Array:
    flat = data if isinstance(data, list) else []
    for _ in shape[1:]:
        if flat and isinstance(flat[0], list):
            flat = [part for row in flat for part in (row if isinstance(row, list) else [None])]
    values = np.empty(prod(shape), object)
    if len(flat) != len(values) or not all(isinstance(part, str) for part in flat):
        raise RequestError(400, "data", f"input {name!r} needs {len(values)} texts")
    for i, part in enumerate(flat):
        try:
            values[i] = part.encode()
        except UnicodeEncodeError:
            raise RequestError(
                400, "data", f"input {name!r} holds text that is no Unicode"
            ) from None
        _check_text(values[i], name, limits)
    return values.reshape(shape)


def _raw(
    data: memoryview, datatype: str, shape: tuple[int, ...], name: str, limits: Limits
) -> Array:
    if datatype != "BYTES":
        kind = DATATYPES[datatype]
        if len(data) != prod(shape) * kind.itemsize:
            raise _short(name)
        if kind.kind == "b" and bytes(data).strip(b"\x00\x01"):
            raise RequestError(400, "data", f"input {name!r} holds bytes that are no truth values")
        return np.frombuffer(data, kind).reshape(shape)
    values, place = np.empty(prod(shape), object), 0
    for i in range(len(values)):
        end = place + 4
        size = int.from_bytes(data[place:end], "little") if end <= len(data) else len(data) + 1
        if end + size > len(data):
            raise _short(name)
        values[i], place = bytes(data[end : end + size]), end + size
        _check_text(values[i], name, limits)
    if place != len(data):
        raise _short(name)
    return values.reshape(shape)


def _short(name: str) -> RequestError:
    return RequestError(400, "raw_bytes", f"the raw data of input {name!r} do not fit its shape")


def _check_text(part: bytes, name: str, limits: Limits) -> None:
    if len(part) > limits.text:
        raise RequestError(
            413, "too_large", f"input {name!r} holds text of over {limits.text} bytes"
        )
