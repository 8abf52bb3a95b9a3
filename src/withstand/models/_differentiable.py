"""BPDA: a step without useful gradients, attacked through a smooth stand-in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._errors import ModelError


class Differentiable:
    """A defence on the way forward and its surrogate on the way back (Athalye et al. 2018, BPDA).

    A function of tensors (B, ...), for a TorchModel's preprocess or a Pipeline's steps. surrogate:
    a differentiable function of nearly the same values; the identity if not given.
    """

    def __init__(
        self,
        defence: Callable[[Tensor], Tensor],
        surrogate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.defence, self.surrogate = defence, surrogate

    def __call__(self, x: Tensor) -> Tensor:
        """The defence's value, with the surrogate's gradient; ModelError if their shapes differ."""
        with torch.no_grad():
            # A defence that works in place must not reach the caller's tensor.
            out = self.defence(x.clone())
        smooth = x if self.surrogate is None else self.surrogate(x)
        if out.shape != smooth.shape:
            raise ModelError(
                f"the defence gives shape {tuple(out.shape)} and its surrogate "
                f"{tuple(smooth.shape)}; give a surrogate with the defence's shape"
            )
        # The difference is zero to the last bit, so that the value is the defence's own.
        return out + (smooth - smooth.detach())
