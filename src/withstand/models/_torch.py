"""Any torch module as a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .._errors import ModelError, answering
from ..threat import Access, Box
from ._held import held_modules
from ._protocol import Gradient, Objective


class TorchModel:
    """A torch module with gradients, frozen and in eval mode while it is attacked.

    net: maps raw input (B, ...) to scores (B, K); domain: the bounds of raw input, a pair or a Box;
    preprocess: applied to raw input before the net and differentiated through.
    """

    access: Access = "gradients"

    def __init__(
        self,
        net: nn.Module,
        *,
        domain: Sequence[float] | Box = (0.0, 1.0),
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.net = net
        self.domain = domain if isinstance(domain, Box) else Box(domain[0], domain[1])
        self.preprocess = preprocess

    @property
    def device(self) -> torch.device:
        """Where the net's parameters live; the CPU if it has none."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...) with the graph that leads back to it; 1 forward."""
        # A first layer that works in place must not reach the caller's tensor.
        x = x.clone()
        with answering(x):
            out = self.net(x if self.preprocess is None else self.preprocess(x))
        if not isinstance(out, Tensor) or len(out) != len(x):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(
                f"the model answered {len(x)} inputs with {shape}; it must return one row of "
                "scores for each input (B, K)"
            )
        return out[:, None] if out.ndim == 1 else out

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        with torch.no_grad():
            return self.forward(x)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return self.scores(x).argmax(1)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective and its gradient with respect to x (B, ...); 1 forward and 1 backward.

        A model that is cut off from its input has the gradient zero.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            scores = self.forward(x)
            values = objective(scores)
            if not values.requires_grad:
                return Gradient(scores.detach(), values.detach(), torch.zeros_like(x))
            (grad,) = torch.autograd.grad(
                values.sum(), x, allow_unused=True, materialize_grads=True
            )
        return Gradient(scores.detach(), values.detach(), grad)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) and the gradients (B, J, ...) of each row's chosen outputs (B, J).

        1 forward and J backwards.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            scores = self.forward(x)
            if not scores.requires_grad:
                return scores, x.new_zeros(len(x), outputs.shape[1], *x.shape[1:])
            chosen = scores.gather(1, outputs).sum(0)
            grads = [
                torch.autograd.grad(
                    value, x, retain_graph=True, allow_unused=True, materialize_grads=True
                )[0]
                for value in chosen
            ]
        return scores.detach(), torch.stack(grads, 1)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Eval mode and frozen parameters inside; mode, buffers and RNG as they were afterwards."""
        with held_modules(self.net, self.preprocess):
            yield


def device_of(model: object) -> torch.device:
    """Where a model wants its input; the CPU if it does not say."""
    found = getattr(model, "device", None)
    return found if isinstance(found, torch.device) else torch.device("cpu")
