"""The one form in which an inspected request goes on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import orjson

from ...evidence.log import octets
from ._error import RequestError
from ._inference import Inference, Named

LENGTH = "inference-header-content-length"
_ROOM = 256
_heads: dict[tuple[str, str, tuple[int, ...], int], Forwarded] = {}


class Forwarded(NamedTuple):
    """A body and the headers that belong to it, names in small letters."""

    body: bytes
    headers: dict[str, str]


def write_v2(asked: Inference, *, raw: bool) -> Forwarded:
    """The request as the Open Inference Protocol v2 has it, from what was inspected and no more.

    raw: tensors as bytes behind the JSON, for servers that take the binary extension. Raises
    RequestError for bytes that are no text where the JSON form must hold them.
    """
    if not raw or not _bare(asked):
        return _written(asked, raw)
    named = asked.inputs[0]
    known = named.name, named.datatype, named.values.shape, named.values.nbytes
    found = _heads.get(known)
    if found is None:
        head, headers = _written(asked, raw)
        found = Forwarded(head[: int(headers[LENGTH])], headers)
        if len(_heads) >= _ROOM:
            _heads.clear()
        _heads[known] = found
    return Forwarded(b"".join((found.body, _bytes(named))), dict(found.headers))


def _bare(asked: Inference) -> bool:
    """Whether the JSON before raw tensors follows from one input's name, datatype and shape."""
    if len(asked.inputs) > 1 or asked.id or asked.outputs or asked.parameters or asked.binary:
        return False
    return not asked.inputs[0].parameters and asked.inputs[0].datatype != "BYTES"


def _written(asked: Inference, raw: bool) -> Forwarded:
    tensors: list[dict[str, Any]] = []
    tails: list[bytes | memoryview] = []
    for named in asked.inputs:
        tensor: dict[str, Any] = {
            "name": named.name, "shape": list(named.values.shape), "datatype": named.datatype,
        }  # fmt: skip
        parameters = dict(named.parameters)
        if raw:
            tails.append(_bytes(named))
            parameters["binary_data_size"] = len(tails[-1])
        else:
            tensor["data"] = _data(named)
        if parameters:
            tensor["parameters"] = parameters
        tensors.append(tensor)
    content: dict[str, Any] = {"inputs": tensors}
    if asked.id:
        content["id"] = asked.id
    parameters = dict(asked.parameters)
    if asked.binary and not asked.outputs:
        parameters["binary_data_output"] = True
    if parameters:
        content["parameters"] = parameters
    if asked.outputs:
        wanted = {"binary_data": True} if asked.binary else {}
        content["outputs"] = [
            {"name": name, **({"parameters": told | wanted} if told or wanted else {})}
            for name, told in asked.outputs
        ]
    head = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return Forwarded(head, {"content-type": "application/json"})
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return Forwarded(b"".join((head, *tails)), headers)


def _bytes(named: Named) -> bytes | memoryview:
    if named.datatype != "BYTES":
        return octets(named.values)
    return b"".join(len(part).to_bytes(4, "little") + part for part in named.values.ravel())


def _data(named: Named) -> Any:
    flat = named.values.ravel()
    if named.datatype != "BYTES":
        # JSON has no half precision, and the protocol wants it raw; each is exact in float32.
        return flat.astype(np.float32) if flat.dtype == np.float16 else flat
    try:
        return [part.decode() for part in flat]
    except UnicodeDecodeError:
        raise RequestError(
            400, "data", f"input {named.name!r} holds bytes that JSON cannot carry"
        ) from None
