"""What goes over the wire to a served model: batches written, replies read, nothing sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from .._errors import ModelError, listed, one_line

# As many as every version of numpy has.
_AXES = 32
_LENGTH = "Inference-Header-Content-Length"
_DATATYPES = {
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "BOOL": "?",
}


class Request(NamedTuple):
    """A body and the headers that belong to it."""

    body: bytes
    headers: dict[str, str]


class Reply(NamedTuple):
    """The numbers of a reply, float64; whole: written without decimals.

    datatype, output, version: the type and name of what was read and the model's version, if told.
    """

    values: Any
    whole: bool
    datatype: str | None = None
    output: str | None = None
    version: str | None = None


class Wire(Protocol):
    """A format; both directions raise ModelError with a text that follows the server's name."""

    def write(self, rows: Any) -> Request:
        """The request for rows (B, ...)."""

    def read(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The numbers in a reply; headers are matched in any case."""


@dataclass(frozen=True, kw_only=True)
class V2:
    """Open Inference Protocol v2, JSON or with the binary-tensor extension both ways."""

    input: str = "input-0"
    output: str | None = None
    datatype: Literal["FP32", "FP64"] = "FP32"
    binary: bool = False

    def write(self, rows: Any) -> Request:
        rows = np.ascontiguousarray(rows, dtype=_DATATYPES[self.datatype])
        shape = list(rows.shape)
        tensor: dict[str, Any] = {"name": self.input, "shape": shape, "datatype": self.datatype}
        # An identity is optional, but KServe's own models fail without one.
        asked: dict[str, Any] = {"id": "withstand", "inputs": [tensor]}
        if self.output is not None:
            asked["outputs"] = [{"name": self.output}]
        if not self.binary:
            tensor["data"] = rows.reshape(-1)
            return _json(asked)
        tensor["parameters"] = {"binary_data_size": rows.nbytes}
        if self.output is None:
            asked["parameters"] = {"binary_data_output": True}
        else:
            asked["outputs"][0]["parameters"] = {"binary_data": True}
        head = _json(asked).body
        headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}
        return Request(head + rows.tobytes(), headers)

    def read(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        length = _header_length(headers, len(body))
        content = _parsed(body[:length])
        outputs = content.get("outputs") if isinstance(content, dict) else None
        if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
            raise ModelError(
                f"answered with {_shown(content)}, without the outputs of the Open Inference "
                "Protocol; correct model.http.format"
            )
        tail, parts = body[length:], {}
        for output in outputs:
            parameters = output.get("parameters")
            size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
            if isinstance(size, int) and 0 <= size <= len(tail):
                output["data"], tail = tail[:size], tail[size:]
            parts[str(output.get("name"))] = output
        if self.output is None and len(parts) != 1:
            raise ModelError(
                f"answered with {len(parts)} outputs ({listed(parts)}); name one as "
                "model.http.output"
            )
        chosen = next(iter(parts.values())) if self.output is None else parts.get(self.output)
        if chosen is None:
            raise ModelError(
                f"answered without the output {self.output!r}; it gives {listed(parts)}: correct "
                "model.http.output"
            )
        version = content.get("model_version")
        return _tensor(chosen)._replace(
            output=one_line(str(chosen.get("name")), 40),
            version=one_line(str(version), 40) if isinstance(version, str | int) else None,
        )


@dataclass(frozen=True, kw_only=True)
class MLflow:
    """MLflow's scoring server: {"inputs": rows}, answered with {"predictions": ...}."""

    def write(self, rows: Any) -> Request:
        return _json({"inputs": _plain(rows)})

    def read(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        content = _parsed(body)
        if not isinstance(content, dict) or "predictions" not in content:
            raise ModelError(
                f"answered with {_shown(content)}, without predictions; correct model.http.format"
            )
        return _numbers(content["predictions"])


class Template:
    """A request in the user's own form, and the dotted path to the numbers in its reply.

    request: plain values, or JSON text of them, in which "$batch" stands for the rows or "$row" for
    the only row; reply: keys and indices with dots between them, * for each element of a list,
    empty for the whole reply. Raises ModelError for a request without a place.
    """

    def __init__(self, request: Any, reply: str) -> None:
        if isinstance(request, str) and request not in ("$batch", "$row"):
            try:
                request = json.loads(request)
            except ValueError as error:
                raise ModelError(
                    f"model.http.request is not JSON ({one_line(error, 60)}); write it as JSON "
                    'with "$batch" in quotes, or as a mapping'
                ) from None
        self.request, self.path = request, [part for part in reply.split(".") if part]
        places = _places(request)
        if len(places) != 1:
            raise ModelError(
                f"model.http.request has {len(places)} places for the inputs; write one value as "
                '"$batch", or as "$row" for a server that takes one input at a time'
            )
        self.single = places == ["$row"]

    def write(self, rows: Any) -> Request:
        return _json(_filled(self.request, _plain(rows[0] if self.single else rows)))

    def read(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        reply = _numbers(_followed(_parsed(body), self.path, self.path))
        values = reply.values
        # One input at a time is mostly answered without an axis for the batch.
        if self.single and (values.ndim == 0 or (values.ndim == 1 and len(values) != 1)):
            values = values[None]
        return reply._replace(values=values)


def _json(content: Any) -> Request:
    import orjson

    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    # Some servers refuse JSON that does not say so.
    return Request(body, {"Content-Type": "application/json"})


def _plain(rows: Any) -> Any:
    """Rows for a format without datatypes, whose readers take numbers for float64."""
    rows = np.asarray(rows, np.float64 if rows.dtype.kind == "f" else None, order="C")
    # A single number is no array to orjson.
    return rows[()]


def _parsed(body: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's own servers write NaN, which is no JSON but worth a better error.
        return json.loads(body)
    except (ValueError, RecursionError):
        begun = one_line(body[:200].decode(errors="replace"), 60)
        raise ModelError(
            f"answered with {len(body)} bytes that are not JSON ({begun!r}); correct model.url or "
            "model.http.format"
        ) from None


def _header_length(headers: Mapping[str, str], most: int) -> int:
    told = next((v for k, v in headers.items() if k.lower() == _LENGTH.lower()), None)
    if told is None:
        return most
    # Python reads no number of thousands of digits.
    if not told.isdecimal() or len(told) > 18 or int(told) > most:
        raise ModelError(
            f"answered with {_LENGTH} {one_line(told, 20)} on {most} bytes; correct the server, or "
            "set model.http.format: v2"
        )
    return int(told)


def _tensor(output: Mapping[str, Any]) -> Reply:
    """The numbers of one v2 output, whose data is a list, nested or not, or raw bytes."""
    name, datatype, data = output.get("name"), str(output.get("datatype")), output.get("data")
    if datatype not in _DATATYPES:
        raise ModelError(
            f"answered with datatype {one_line(datatype, 20)} in output {name!r}; serve one of "
            f"{listed(_DATATYPES)}, or name another model.http.output"
        )
    shape = output.get("shape")
    if not isinstance(shape, list) or not _is_shape(shape):
        raise ModelError(f"answered with shape {_shown(shape)} in output {name!r}; mend the server")
    if isinstance(data, bytes):
        kind = np.dtype(_DATATYPES[datatype])
        if len(data) != math.prod(shape) * kind.itemsize:
            raise ModelError(
                f"answered with {len(data)} bytes for shape {shape} of {datatype} in output "
                f"{name!r}; mend the server, or set model.http.format: v2"
            )
        values = np.frombuffer(data, kind).astype(np.float64)
    elif data is None:
        raise ModelError(f"answered without data in output {name!r}; mend the server")
    else:
        values = _numbers(data).values
    if values.size != math.prod(shape):
        raise ModelError(
            f"answered with {values.size} numbers for shape {shape} in output {name!r}; mend the "
            "server"
        )
    return Reply(values.reshape(shape), not datatype.startswith("FP"), datatype)


def _is_shape(told: list[Any]) -> bool:
    # Not isinstance, since True is no size.
    return len(told) <= _AXES and all(type(n) is int and n >= 0 for n in told)


def _numbers(value: Any) -> Reply:
    try:
        array = np.array(value)
        # A null is how most writers of JSON say NaN.
        values = array.astype(np.float64) if array.dtype.kind in "biufO" else None
    except (ValueError, TypeError, OverflowError):
        raise ModelError(
            f"answered with {_shown(value)}, which is no array of numbers; correct "
            "model.http.reply, or give rows of equal length"
        ) from None
    if values is None:
        raise ModelError(
            f"answered with text ({_shown(value)}) where numbers were expected; serve scores, or "
            "labels as whole numbers in the order of the classes"
        )
    return Reply(values, array.dtype.kind in "biu")


def _places(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [place for part in value.values() for place in _places(part)]
    if isinstance(value, list | tuple):
        return [place for part in value for place in _places(part)]
    return [value] if value in ("$batch", "$row") else []


def _filled(value: Any, rows: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, rows) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(part, rows) for part in value]
    return rows if value in ("$batch", "$row") else value


def _followed(value: Any, path: list[str], whole: list[str]) -> Any:
    if not path:
        return value
    part, rest = path[0], path[1:]
    if part == "*" and isinstance(value, list):
        return [_followed(element, rest, whole) for element in value]
    if isinstance(value, dict) and part in value:
        return _followed(value[part], rest, whole)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return _followed(value[int(part)], rest, whole)
    raise ModelError(
        f"answered without {part!r} of model.http.reply {'.'.join(whole)!r}: there is "
        f"{_shown(value)}; correct the path"
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"the keys {listed([one_line(key, 30) for key in value], 6)}"
    if isinstance(value, list):
        return f"a list of {len(value)}: {one_line(value[:3], 60)}"
    return one_line(repr(value), 60)
