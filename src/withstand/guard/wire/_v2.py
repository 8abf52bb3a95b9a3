"""Requests of the Open Inference Protocol v2, as JSON or with raw tensors behind it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ._envelope import Envelope, Envelopes, Parts, before_raw, cut
from ._error import RequestError
from ._inference import DATATYPES, Array, Inference, Limits, Named, check_finite, ends_of
from ._json import Text, give_back, is_list, lent, members

_TRANSPORT = {"binary_data_size", "binary_data", "binary_data_output"}
_TOP = frozenset(("id", "parameters", "inputs", "outputs"))
_INPUT = frozenset(("name", "shape", "datatype", "parameters", "data"))
_INFO: dict[str, Any] = {
    name: np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    for name, kind in DATATYPES.items()
    if kind.kind != "b"
}


def _highest(name: str) -> float:
    """The highest number that is rounded to one of a datatype.

    The highest float32 in as few digits as tell it, 3.4028235e38, lies above that float32.
    """
    info = _INFO[name]
    highest = float(info.max)
    if DATATYPES[name].kind != "f" or DATATYPES[name].itemsize == 8:
        return highest
    step = highest - float(np.nextafter(info.max, info.dtype.type(0)))
    return float(np.nextafter(highest + step / 2, 0.0))


_HIGHEST = {name: _highest(name) for name in _INFO}
_LOWEST = {
    name: -_HIGHEST[name] if DATATYPES[name].kind == "f" else float(info.min)
    for name, info in _INFO.items()
}
_envelopes = Envelopes()
_OUTPUT = frozenset(("name", "parameters"))


def read_v2(body: bytes, header_length: str | None, limits: Limits) -> Inference:
    """The request in a body; header_length: the value of Inference-Header-Content-Length, if any.

    Raises RequestError for what the protocol does not allow or parsers disagree about.
    """
    if len(body) > limits.body:
        raise RequestError(413, "too_large", f"the body has more than {limits.body} bytes")
    length = len(body) if header_length is None else _length(header_length, len(body))
    # A whole body is not copied: it may be megabytes of JSON.
    head, tail = body if length == len(body) else body[:length], memoryview(body)[length:]
    parts = cut(body) if header_length is None else before_raw(head, tail)
    known = None if parts is None else _envelopes.find(parts, limits)
    if parts is not None and known is not None:
        again = _again(known, parts)
        if again is not None:
            return again
    text = Text(head)
    content = members(text.root, "the request", _TOP)
    told = text.elements(content.get("inputs"))
    if told is None or not 0 < len(told) <= limits.inputs:
        raise RequestError(400, "inputs", f"inputs must be a list of 1 to {limits.inputs} tensors")
    room = limits.elements
    inputs = []
    for one in told:
        named, tail = _input(text, one, tail, room, limits)
        inputs.append(named)
        room -= named.values.size
    if len(tail):
        raise RequestError(400, "raw_bytes", f"{len(tail)} bytes belong to no input")
    if len(inputs) > 1 and len({named.name for named in inputs}) < len(inputs):
        raise RequestError(400, "duplicate_name", "two inputs have the same name")
    parameters, transport = _parameters(content, limits)
    identity = content.get("id", "")
    if not isinstance(identity, str) or len(identity) > 256:
        raise RequestError(400, "id", "id must be text of at most 256 characters")
    outputs, raw = _outputs(text, content.get("outputs"), limits)
    try:
        text.close()
    except ValueError:
        raise RequestError(400, "data", "there are lists among the numbers of an input") from None
    asked = Inference(
        id=identity,
        inputs=tuple(inputs),
        outputs=outputs,
        parameters=parameters,
        binary=raw or transport.get("binary_data_output") is True,
    )
    if parts is not None:
        _envelopes.keep(parts, limits, asked)
    return asked


def _again(known: Envelope, parts: Parts) -> Inference | None:
    """A known request with other numbers; None for what is to be read in full, and refused."""
    name, datatype, shape = known.name, known.datatype, known.shape
    try:
        if isinstance(parts.numbers, memoryview):
            named = _raw_input(
                parts.numbers, name, datatype, shape, known.parameters, known.limits
            )  # fmt: skip
        else:
            parser = lent()
            text = Text(parts.numbers, parser)
            values, ends = _numbers(text, text.root, datatype, shape, name)
            del text
            give_back(parser, parts.numbers)
            named = Named(
                name=name, datatype=datatype, values=values, parameters=known.parameters, ends=ends
            )
    except RequestError:
        return None
    return Inference(
        id="", inputs=(named,), outputs=known.outputs, parameters=known.of_request,
        binary=known.binary,
    )  # fmt: skip


def _length(told: str, size: int) -> int:
    if not (told.isascii() and told.isdecimal() and len(told) < 12 and 0 < int(told) <= size):
        raise RequestError(
            400, "header_length", "Inference-Header-Content-Length does not fit the body"
        )
    return int(told)


def _input(
    text: Text, one: Any, tail: memoryview, room: int, limits: Limits
) -> tuple[Named, memoryview]:
    one = members(one, "an input", _INPUT)
    name, datatype = one.get("name"), one.get("datatype")
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise RequestError(400, "name", "an input needs a name of 1 to 256 characters")
    if datatype != "BYTES" and datatype not in DATATYPES:
        raise RequestError(400, "datatype", f"input {name!r} has a datatype that is not known")
    shape = _shape(text.elements(one.get("shape")), name, room, limits)
    parameters, transport = _parameters(one, limits)
    if "binary_data_size" in transport:
        size = transport["binary_data_size"]
        if type(size) is not int or not 0 <= size <= len(tail) or "data" in one:
            raise RequestError(
                400, "raw_bytes", f"input {name!r} has raw data that do not fit the body"
            )
        return _raw_input(tail[:size], name, datatype, shape, parameters, limits), tail[size:]
    ends = None
    if datatype == "BYTES":
        values = _text(text, one.get("data"), shape, name, limits)
    else:
        values, ends = _numbers(text, one.get("data"), datatype, shape, name)
    named = Named(name=name, datatype=datatype, values=values, parameters=parameters, ends=ends)
    return named, tail


def _shape(told: list[Any] | None, name: str, room: int, limits: Limits) -> tuple[int, ...]:
    right = told is not None and 0 < len(told) <= limits.axes
    for size in told or ():
        right = right and type(size) is int and size > 0
    if told is None or not right:
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
    given = one.get("parameters")
    if given is None:
        return {}, {}
    told = members(given, "parameters")
    if len(told) > limits.parameters:
        raise RequestError(
            400, "parameters", f"parameters must be at most {limits.parameters} values"
        )
    for value in told.values():
        if not isinstance(value, str | int | float | bool | None):
            raise RequestError(400, "parameters", "parameters must be plain values")
    kept = {key: value for key, value in told.items() if key not in _TRANSPORT}
    return kept, {key: value for key, value in told.items() if key in _TRANSPORT}


def _outputs(
    text: Text, given: Any, limits: Limits
) -> tuple[tuple[tuple[str, dict[str, Any]], ...], bool]:
    if given is None:
        return (), False
    told = text.elements(given)
    if told is None or len(told) > limits.inputs:
        raise RequestError(400, "outputs", f"outputs must be a list of at most {limits.inputs}")
    found, raw = [], False
    for one in told:
        one = members(one, "an output", _OUTPUT)
        name = one.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 256:
            raise RequestError(400, "outputs", "an output needs a name of 1 to 256 characters")
        parameters, transport = _parameters(one, limits)
        raw = raw or transport.get("binary_data") is True
        found.append((name, parameters))
    return tuple(found), raw


def _numbers(
    text: Text, data: Any, datatype: str, shape: tuple[int, ...], name: str
) -> tuple[Array, tuple[float, float] | None]:
    """Numbers from a list, flat or nested exactly as the shape is, the lowest and the highest."""
    wanted = DATATYPES[datatype]
    try:
        if wanted.kind == "b":
            return _truths(text, data, shape), None
        kind = "d" if wanted.kind == "f" else "u" if wanted == np.uint64 else "i"
        found = text.numbers(data, kind, shape)
    except ValueError:
        raise _unfit(name) from None
    if wanted.itemsize == 8:
        return found, ends_of(found) if kind == "d" else None
    lowest, highest = found.argmin(), found.argmax()
    if found.item(lowest) < _LOWEST[datatype] or found.item(highest) > _HIGHEST[datatype]:
        raise _unfit(name)
    values = found.astype(wanted)
    # Rounding keeps the order.
    return values, (float(values.item(lowest)), float(values.item(highest)))


def _truths(text: Text, data: Any, shape: tuple[int, ...]) -> Array:
    flat = _flattened(text, data, shape)
    if len(flat) != prod(shape) or not all(type(value) is bool for value in flat):
        raise ValueError("no truth values")
    return np.array(flat).reshape(shape)


def _flattened(text: Text, data: Any, shape: tuple[int, ...]) -> list[Any]:
    """What is in a list, flat or nested exactly as the shape is; raises ValueError for neither."""
    flat = text.elements(data) or []
    nested = bool(flat) and len(shape) > 1 and is_list(flat[0])
    if len(flat) != (shape[0] if nested else prod(shape)):
        raise ValueError("no list of that length")
    if nested:
        return [one for part in flat for one in _flattened(text, part, shape[1:])]
    return flat


def _unfit(name: str) -> RequestError:
    return RequestError(
        400, "data", f"the data of input {name!r} do not fit its shape and datatype"
    )


def _text(text: Text, data: Any, shape: tuple[int, ...], name: str, limits: Limits) -> Array:
    values = np.empty(prod(shape), object)
    try:
        flat = _flattened(text, data, shape)
    except ValueError:
        flat = []
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


def _raw_input(
    data: memoryview, name: str, datatype: str, shape: tuple[int, ...], parameters: dict[str, Any],
    limits: Limits,
) -> Named:  # fmt: skip
    values = _raw(data, datatype, shape, name, limits)
    ends = ends_of(values) if values.dtype.kind == "f" else None
    named = Named(name=name, datatype=datatype, values=values, parameters=parameters, ends=ends)
    check_finite(named)
    return named


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
