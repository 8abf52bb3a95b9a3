"""A FastAPI application with a guard inside: start_fastapi.py PORT."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel

from withstand.guard import Guard, GuardMiddleware, Line

WEIGHTS = np.random.default_rng(0).standard_normal((4, 3))
app = FastAPI()


class Rows(BaseModel):
    """The body of a prediction."""

    instances: list[list[float]]


@app.post("/predict")
def predict(rows: Rows, request: Request):
    """Scores of rows, and what else arrived."""
    scores = np.array(rows.instances) @ WEIGHTS
    seen = request.headers.get("x-user", "")
    return {"predictions": scores.tolist(), "user": seen, "client": request.client.host}


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request):
    """The body as it arrived."""
    told = {"name": "body", "datatype": "BYTES", "shape": [1]}
    return {"model_name": name, "outputs": [{**told, "data": [(await request.body()).decode()]}]}


@app.post("/orders")
async def orders(request: Request):
    """The body as it arrived, though it be no JSON."""
    return {"length": len(await request.body())}


def make(upstream):
    """The guard of two models."""
    line = Line(mode="enforce", upstream=upstream)
    return Guard({"rows": line, "echo": line})


app.add_middleware(GuardMiddleware, make=make, paths={"/predict": "/v1/models/rows:predict"})
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["POST"])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
