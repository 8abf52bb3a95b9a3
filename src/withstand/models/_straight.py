"""Straight through whatever hides the gradient: the model's own values, a surrogate's slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._differentiable import Differentiable
from ._ensemble import Ensemble
from ._input_transform import InputTransform
from ._pipeline import Pipeline
from ._protocol import Model
from ._randomized import Randomized
from ._reconnect import Reconnecting, mend
from ._torch import TorchModel


class StraightThrough(nn.Module):
    """A module or function of tensors (B, ...) whose gradient is not cut off (Bengio et al. 2013).

    Values are those of `inner`, bit for bit. On the way back (BPDA, Athalye et al. 2018) roundings,
    detached tensors, trips through numpy and steps without a gradient of their own are the
    identity, comparisons are sigmoids, and whole numbers what they were rounded from.
    What runs outside torch, changes the shape and comes back unlike its input stays cut off.
    """

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """The value of `inner` at x (B, ...); without gradients it is only called."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.inner(x)
        # What works in place on a leaf, through detach or data, would meet autograd's refusal.
        x = x.clone() if x.is_leaf else x
        mode = Reconnecting(x, known=(*self.parameters(), *self.buffers()))
        with mode:
            out = self.inner(x)
        if isinstance(out, Tensor):
            out = mode.linked(out)
            mend(out)
        return out


def straight_through(model: Model) -> Model:
    """The model with `StraightThrough` around its torch modules and functions, else as it is."""
    if isinstance(model, TorchModel):
        return TorchModel(
            StraightThrough(model.net),
            domain=model.domain,
            preprocess=None if model.preprocess is None else _wrapped(model.preprocess),
        )
    if isinstance(model, Pipeline):
        steps = [_wrapped(step) for step in model.steps]
        return Pipeline(steps, straight_through(model.model), domain=model.domain)
    if isinstance(model, Ensemble):
        return Ensemble([straight_through(m) for m in model.models], combine=model.combine)
    if type(model) is Randomized:
        inner = straight_through(model.model)
        return Randomized(inner, draws=model.draws, combine=model.combine)
    return model


def _wrapped(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # Its parts are held by name, and it has a surrogate of the user's own.
    known = isinstance(function, Differentiable | InputTransform)
    return function if known else StraightThrough(function)
