"""A model server of the Open Inference Protocol v2, for the loop; a program of its own.

python _server.py FOLDER FACTORY WEIGHTS PORT
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import uvicorn
from safetensors.torch import load_file

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

_INPUT = {"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
_OUTPUT = {"name": "scores", "datatype": "FP32", "shape": [-1, 10]}


def application(net: torch.nn.Module, name: str = "digits") -> Any:
    """The ASGI application of one network."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, status, told = scope["path"], 200, {}
        if path == f"/v2/models/{name}/infer" and scope["method"] == "POST":
            try:
                told = _inferred(net, name, orjson.loads(await _body(receive)))
            except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
                status, told = 400, {"error": str(error)[:200]}
        elif path == f"/v2/models/{name}":
            told = {"name": name, "platform": "torch", "inputs": [_INPUT], "outputs": [_OUTPUT]}
        elif path == "/v2":
            told = {"name": "loop", "version": "1", "extensions": []}
        elif path not in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{name}/ready"):
            status, told = 404, {"error": "there is nothing here"}
        body = orjson.dumps(told)
        headers = [
            (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))
        ]  # fmt: skip
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def _inferred(net: torch.nn.Module, name: str, asked: Any) -> dict[str, Any]:
    tensor = asked["inputs"][0]
    x = np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])
    with torch.no_grad():
        scores = net(torch.from_numpy(x).reshape(-1, 1, 8, 8)).softmax(1)
    output = {**_OUTPUT, "shape": list(scores.shape), "data": scores.ravel().tolist()}
    return {"model_name": name, "id": asked.get("id", ""), "outputs": [output]}


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def main(folder: str, factory: str, weights: str, port: str) -> None:
    """Serve until SIGTERM."""
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("model", Path(folder, "model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = getattr(module, factory)()
    net.load_state_dict(load_file(Path(folder, weights)))
    net.eval()
    uvicorn.run(
        application(net), host="127.0.0.1", port=int(port), log_level="warning", lifespan="off"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
