"""A small server with a guard inside it. Start it with `uvicorn guard_middleware:app`.

The server has a path of its own, /predict, and whatever else it likes. The guard stands before
/predict alone: it reads each request, asks the server for the answer, and keeps the quota.
"""

import json

import numpy as np

from withstand.guard import Access, Guard, GuardMiddleware, Line, Quota, Rate
from withstand.guard.wire import Limits

WEIGHTS = np.random.default_rng(0).standard_normal((4, 3))


async def server(scope, receive, send):
    """Class scores for rows of four numbers at /predict, and a greeting anywhere else."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/predict":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        scores = np.exp(np.array(json.loads(body)["instances"]) @ WEIGHTS)
        told = {"predictions": (scores / scores.sum(1, keepdims=True)).tolist()}
    else:
        told = {"hello": "this is no model"}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def make(upstream):
    """The guard around the server, which is its upstream."""
    line = Line(mode="enforce", upstream=upstream, limits=Limits(elements=4 * 64))
    return Guard({"digits": line}, access=Access(None, Quota(Rate(requests=100, seconds=60))))


app = GuardMiddleware(server, make, paths={"/predict": "/v1/models/digits:predict"})
