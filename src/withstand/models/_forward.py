"""A model's scores as a function that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._declared import Declared
from ._ensemble import Ensemble, weighted
from ._pipeline import Pipeline
from ._protocol import Model
from ._torch import TorchModel


def differentiable(model: Model) -> Callable[[Tensor], Tensor]:
    """The scores (B, K) of raw input x (B, ...) with the graph that leads back to x.

    Where there are no gradients, the scores are cut off from x. 1 forward, and for the models whose
    graph is not at hand 1 forward and 1 backward more on the way back.
    """
    if isinstance(model, TorchModel):
        return model.forward
    if isinstance(model, Declared):
        return differentiable(model.model)
    if isinstance(model, Pipeline):
        inner = differentiable(model.model)
        return lambda x: inner(model.enter(x))
    if model.access != "gradients":
        return model.scores

    def asked(x: Tensor) -> Tensor:
        scores: Tensor = _Asked.apply(x, model)  # type: ignore[no-untyped-call]
        return scores

    return asked


def network_of(model: object) -> nn.Module | None:
    """The one torch module that answers behind steps and declarations, None without one."""
    while isinstance(model, Pipeline | Declared):
        model = model.model
    return model.net if isinstance(model, TorchModel) else None


def members_of(model: Model) -> tuple[Model, ...]:
    """The members of the ensemble behind steps and declarations, each behind the same steps."""
    if isinstance(model, Ensemble):
        return model.models
    if isinstance(model, Declared):
        return members_of(model.model)
    if isinstance(model, Pipeline):
        inner = members_of(model.model)
        return tuple(Pipeline(model.steps, member, domain=model.domain) for member in inner)
    return ()


class _Asked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Model) -> Tensor:
        ctx.model = model
        ctx.save_for_backward(x)
        return model.scores(x)

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.model.gradient(x, weighted(weights[0])).gradient, None
