"""A model that is a function in the same process, in the place of a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from .._message import Answer, Headers, UpstreamError, refusal
from .._routes import Route, find_route
from ..wire import DATATYPES, Inference, Limits, RequestError, read_rows, read_v2
from ._pool import Patience

Array = NDArray[Any]
Predict = Callable[[dict[str, Array]], Mapping[str, Array]]

_log = logging.getLogger("withstand.guard")
_LENGTH = b"inference-header-content-length"
_JSON = (b"content-type", b"application/json")
_NAMES = {kind: name for name, kind in DATATYPES.items()}


class FunctionUpstream:
    """A function from inputs by name to outputs by name, arrays whose first axis is the batch.

    The rows of KServe v1 and MLflow are one input, named as their key is (`instances`, `inputs` or
    `dataframe_split`), and the first output answers them. The function is called in threads,
    `workers` at one time; one that takes too long keeps its thread until it returns. Of Patience,
    `total` counts.
    """

    def __init__(
        self, predict: Predict, *, workers: int = 1, patience: Patience | None = None
    ) -> None:
        self.patience = patience or Patience()
        self._predict = predict
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="withstand-model")

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Answer:
        """Call the function, or tell of it; raises UpstreamError where it fails."""
        route = find_route(method, target)
        if route is None:
            return refusal(404, "there is nothing here")
        if route.kind != "infer":
            return Answer(200, [_JSON], orjson.dumps(_told(route)))
        try:
            asked = _read(route, headers, body)
        except RequestError as error:
            return refusal(error.status, str(error))
        inputs = {one.name: one.values for one in asked.inputs}
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.patience.total):
                found = await loop.run_in_executor(self._threads, self._call, inputs)
        except TimeoutError:
            raise UpstreamError(504, "upstream_slow") from None
        return _rows(found) if route.form != "v2" else _answer(route, asked, found)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            found = {name: np.asarray(array) for name, array in self._predict(inputs).items()}
            if not found or not all(a.ndim and a.dtype in _NAMES for a in found.values()):
                raise TypeError("the outputs must be arrays of numbers, by name")
        except Exception as error:
            # Its own TimeoutError, too, is a failure and not a lack of time.
            _log.exception("the model behind the guard failed")
            raise UpstreamError(502, "upstream_failed") from error
        return found


def _told(route: Route) -> dict[str, Any]:
    if route.kind == "health":
        return {"name": route.model, "ready": True} if route.model else {"live": True}
    if not route.model:
        return {"name": "withstand", "version": "", "extensions": ["binary_tensor_data"]}
    return {
        "name": route.model, "versions": [], "platform": "python", "inputs": [], "outputs": [],
    }  # fmt: skip


def _read(route: Route, headers: Headers, body: bytes) -> Inference:
    # The guard's own limits have been kept already.
    most = len(body)
    limits = Limits(body=most, inputs=most, elements=most, axes=most, text=most, parameters=most)
    if route.form != "v2":
        return read_rows(body, route.form, limits)
    length = dict(headers).get(_LENGTH)
    return read_v2(body, length.decode("latin-1") if length else None, limits)


def _rows(found: dict[str, Array]) -> Answer:
    first = next(iter(found.values()))
    return Answer(200, [_JSON], orjson.dumps({"predictions": first.tolist()}))


def _answer(route: Route, asked: Inference, found: dict[str, Array]) -> Answer:
    names = [name for name, _ in asked.outputs] or list(found)
    for name in names:
        if name not in found:
            return refusal(400, f"there is no output {name!r}")
    outputs, tails = [], []
    for name in names:
        values = np.ascontiguousarray(found[name])
        told: dict[str, Any] = {
            "name": name, "shape": list(values.shape), "datatype": _NAMES[values.dtype],
        }  # fmt: skip
        if asked.binary:
            tails.append(values.tobytes())
            told["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            told["data"] = values.ravel().tolist()
        outputs.append(told)
    head = orjson.dumps({"model_name": route.model, "id": asked.id, "outputs": outputs})
    if not tails:
        return Answer(200, [_JSON], head)
    length = (_LENGTH, b"%d" % len(head))
    binary = [(b"content-type", b"application/octet-stream"), length]
    return Answer(200, binary, b"".join((head, *tails)))
