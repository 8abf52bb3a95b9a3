"""The way of an input through a model, as steps that can be altered one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...models import FunctionModel, Model, Pipeline, TorchModel, sklearn_model

Step = Callable[[Tensor], Tensor]

# Layers that are no preprocessing, although they have no parameters either.
_LAYERS = (nn.Flatten, nn.Identity, nn.ReLU, nn.Dropout, nn.modules.pooling._AvgPoolNd)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Steps before a model, and one after it.

    steps: raw input (B, ...) enters the first; after: what is done to the answers (B, K).
    """

    steps: tuple[Step, ...]
    model: Model
    after: Step | None = None

    def answers(self, x: Tensor) -> Tensor:
        """Scores (B, K), or labels (B,) of a model with labels only, at raw input x (B, ...)."""
        device = getattr(self.model, "device", torch.device("cpu"))
        with torch.no_grad():
            x = x.to(device, copy=True)
            for step in self.steps:
                x = step(x)
            ask = self.model.labels if self.model.access == "labels" else self.model.scores
            out = ask(x).detach().cpu()
            out = out.double() if out.is_floating_point() else out
            return out if self.after is None else self.after(out)

    def inserted(self, place: int, step: Step) -> Route:
        """The route with one more step at a place."""
        return replace(self, steps=(*self.steps[:place], step, *self.steps[place:]))


def taken_apart(model: Model) -> Route:
    """The route of a model, its preprocessing in as many steps as can be seen.

    They are the steps of a Pipeline, the preprocess of a TorchModel, the first modules of an
    nn.Sequential that have no parameters, and the transformers of a scikit-learn pipeline.
    """
    if isinstance(model, Pipeline):
        inner = taken_apart(model.model)
        return replace(inner, steps=(*model.steps, *inner.steps))
    if isinstance(model, TorchModel):
        steps = () if model.preprocess is None else (model.preprocess,)
        modules = list(model.net) if type(model.net) is nn.Sequential else []
        first = 0
        while first < len(modules) and _prepares(modules[first]):
            first += 1
        if not 0 < first < len(modules) and not steps:
            return Route(steps=(), model=model)
        net = nn.Sequential(*modules[first:]) if modules else model.net
        return Route(steps=(*steps, *modules[:first]), model=TorchModel(net, domain=model.domain))
    if isinstance(model, FunctionModel) and hasattr(model.estimator, "named_steps"):
        *transformers, (_, last) = model.estimator.steps
        if hasattr(last, "predict"):
            known = [t for _, t in transformers if hasattr(t, "transform")]
            return Route(
                steps=tuple(Transformer(t) for t in known),
                model=sklearn_model(last, domain=model.domain),
            )
    return Route(steps=(), model=model)


@dataclass(frozen=True)
class Transformer:
    """A fitted scikit-learn transformer as a step on tensors (B, d)."""

    fitted: Any

    def __call__(self, x: Tensor) -> Tensor:
        out = self.fitted.transform(x.flatten(1).numpy())
        out = np.array(out.toarray() if hasattr(out, "toarray") else out)
        return torch.as_tensor(out if out.dtype.kind == "f" else out.astype(np.float64))


def name_of(step: Step) -> str:
    """What a step is called, or nothing where it has no name of its own."""
    step = step.fitted if isinstance(step, Transformer) else step
    name = getattr(step, "__name__", type(step).__name__)
    return "" if name == "<lambda>" else str(name)


def _prepares(module: nn.Module) -> bool:
    return not isinstance(module, _LAYERS) and next(module.parameters(), None) is None
