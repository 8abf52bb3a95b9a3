"""A guarded model as an AWS Lambda function: `guard_function.handler`, behind a function URL.

The model is a plain function in the same process. Other clouds, and servers that do not await,
call `handler.answer` instead.
"""

import numpy as np

from withstand.guard import Guard, GuardFunction, Line, Rule
from withstand.guard.rules import Input, Schema
from withstand.guard.upstream import FunctionUpstream

WEIGHTS = np.random.default_rng(0).standard_normal((4, 3))


def model(inputs):
    """Class scores of an array x (B, 4)."""
    scores = np.exp(inputs["x"] @ WEIGHTS)
    return {"scores": scores / scores.sum(1, keepdims=True)}


schema = Schema(inputs=(Input(name="x", datatype="FP32", shape=(-1, 4)),), batch=64)
line = Line(
    mode="enforce",
    upstream=FunctionUpstream(model),
    raw=True,
    rules=(Rule(name="schema", apply=schema),),
)
# Made once, when the process starts, and used by all its calls.
handler = GuardFunction(Guard({"digits": line}))
