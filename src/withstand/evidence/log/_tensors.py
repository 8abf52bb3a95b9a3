"""The inputs of one request as the bytes that a vault keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..._errors import EvidenceError


class Tensor(NamedTuple):
    """One input: its name and datatype as the client told them, and its values.

    Text, datatype BYTES, is an array of bytes objects. columns: the names of its columns, if told.
    """

    name: str
    datatype: str
    values: NDArray[Any]
    columns: tuple[str, ...] = ()


class Named(Protocol):
    """What has a name, a datatype and values, as a Tensor."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def values(self) -> NDArray[Any]: ...


def fingerprinted(tensors: Iterable[Named]) -> list[bytes | memoryview]:
    """What the fingerprint of an input is taken over: names, types, shapes and values."""
    parts: list[bytes | memoryview] = []
    for one in tensors:
        parts.append(_about(one.name, one.datatype, one.values.shape))
        if one.datatype == "BYTES":
            for part in one.values.ravel():
                parts += (len(part).to_bytes(8, "little"), part)
        else:
            parts.append(octets(one.values))
    return parts


@lru_cache(maxsize=256)
def _about(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return f"{name}\0{datatype}{shape}".encode()


def octets(values: NDArray[Any]) -> memoryview:
    """The bytes of numbers, not copied where they lie in order: they may be megabytes."""
    try:
        return values.data.cast("B")
    except (TypeError, ValueError):
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def pack(tensors: Sequence[Tensor]) -> bytes:
    """Tensors as one safetensors file; text as uint8, each piece behind its length in 4 bytes."""
    from safetensors.numpy import save

    # Clients choose the names, so that they are values here, and the keys are numbers.
    told = [[one.name, one.datatype, one.values.shape, one.columns] for one in tensors]
    values = {str(number): _stored(one) for number, one in enumerate(tensors)}
    return bytes(save(values, {"withstand": json.dumps(told)}))


def unpack(content: bytes) -> list[Tensor]:
    """The tensors in what `pack` has made; raises EvidenceError for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["withstand"])
        values = load(content)
        return [
            Tensor(name, datatype, _restored(values[str(number)], datatype, shape), tuple(columns))
            for number, (name, datatype, shape, columns) in enumerate(told)
        ]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(
            f"an input is not what a guard keeps ({type(error).__name__}); give its reference from "
            "a record"
        ) from None


def _stored(one: Tensor) -> NDArray[Any]:
    if one.datatype != "BYTES":
        return np.ascontiguousarray(one.values)
    parts = [len(part).to_bytes(4, "little") + part for part in one.values.ravel()]
    return np.frombuffer(b"".join(parts), np.uint8)


def _restored(values: NDArray[Any], datatype: str, shape: list[int]) -> NDArray[Any]:
    if datatype != "BYTES":
        return values.reshape(shape)
    content, parts, begin = values.tobytes(), [], 0
    while begin < len(content):
        end = begin + 4 + int.from_bytes(content[begin : begin + 4], "little")
        parts.append(content[begin + 4 : end])
        begin = end
    found = np.empty(len(parts), object)
    found[:] = parts
    return found.reshape(shape)
