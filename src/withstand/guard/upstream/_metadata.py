"""What a model server tells of itself, as far as it can be believed."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from .._message import Answer, Upstream
from ..wire import DATATYPES

_LONGEST = 65_536
_MOST = 16


class Declared(NamedTuple):
    """An input as the server tells of it; in its shape -1 stands for any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


async def binary_support(upstream: Upstream) -> bool | None:
    """Whether a server says that it takes tensors as raw bytes.

    Triton says so; KServe takes them and does not say, MLServer does not. None where the answer is
    no metadata. Raises UpstreamError where nobody answers.
    """
    told = _object(await upstream.ask("GET", "/v2", []))
    if told is None:
        return None
    extensions = told.get("extensions")
    return isinstance(extensions, list) and "binary_tensor_data" in extensions


async def inputs_of(upstream: Upstream, model: str) -> tuple[Declared, ...] | None:
    """The inputs that a server declares for a model, as `read_inputs` has them.

    MLServer and KServe often declare none. Raises UpstreamError where nobody answers.
    """
    return read_inputs(await upstream.ask("GET", f"/v2/models/{model}", []))


def read_inputs(metadata: Answer) -> tuple[Declared, ...] | None:
    """The inputs in a model's metadata; none where one of them cannot be believed.

    Half of a declaration would refuse what the model takes. None where the answer is no metadata,
    as of a model that is being loaded.
    """
    told = _object(metadata)
    if told is None:
        return None
    inputs = told.get("inputs")
    if not isinstance(inputs, list) or len(inputs) > _MOST:
        return ()
    found = [_input(one) for one in inputs]
    declared = tuple(one for one in found if one is not None)
    names = {one.name for one in declared}
    return declared if len(names) == len(found) else ()


def _object(answer: Answer) -> dict[str, Any] | None:
    if answer.status != 200 or len(answer.body) > _LONGEST:
        return None
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def _input(told: Any) -> Declared | None:
    if not isinstance(told, dict):
        return None
    name, datatype, shape = told.get("name"), told.get("datatype"), told.get("shape")
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= 256
        or not isinstance(datatype, str)
        or (datatype != "BYTES" and datatype not in DATATYPES)
        or not isinstance(shape, list)
        or not 0 < len(shape) <= 8
        or not all(type(n) is int and (n == -1 or n > 0) for n in shape)
    ):
        return None
    return Declared(name, datatype, tuple(shape))
