"""What a defence costs at inference."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from ._declared import own_defences, parts_of
from ._defence import Defence
from ._pipeline import Pipeline
from ._protocol import Model
from ._torch import TorchModel

_ROWS = 32


def inference_cost(model: Model, plain: Model, x: Tensor, *, repeats: int = 5) -> float:
    """CPU time of the model's answers to some of x (N, ...) over that of a plain model's.

    Both are asked in turn and the fastest of `repeats` counts; models elsewhere than on this
    processor cannot be measured so.
    """
    x = x[:_ROWS]
    least = [float("inf"), float("inf")]
    with model.held(), plain.held():
        for _ in range(repeats + 1):
            for place, asked in enumerate((model, plain)):
                began = time.process_time()
                asked.labels(x)
                least[place] = min(least[place], time.process_time() - began)
    return least[0] / max(least[1], 1e-9)


def measured_defences(model: Model, x: Tensor) -> tuple[Defence, ...]:
    """The defences that a model carries, costs measured on x (N, ...) where none are declared.

    What cannot be taken off, as defences inside a network, stays without.
    """
    if isinstance(model, TorchModel) and model.preprocess is not None:
        net = TorchModel(model.net, domain=model.domain)
        model = Pipeline([model.preprocess], net, domain=model.domain)
    if not isinstance(model, Pipeline):
        inner = (measured_defences(part, x) for part in parts_of(model))
        return own_defences(model) + tuple(defence for found in inner for defence in found)
    found: list[Defence] = []
    for step in model.steps:
        defence = getattr(step, "defence", None)
        if isinstance(defence, Defence):
            if defence.cost_factor is None:
                alone = Pipeline([step], model.model, domain=model.domain)
                defence = replace(defence, cost_factor=inference_cost(alone, model.model, x))
            found.append(defence)
        with torch.no_grad():
            x = step(x[:_ROWS])
    return (*found, *measured_defences(model.model, x))
