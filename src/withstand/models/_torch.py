"""Any torch module as a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .._errors import ModelError, answering
from ..threat import Access, Box
from ._defence import Defence
from ._freed import keep_freed
from ._held import held_modules
from ._protocol import Gradient, Objective


class TorchModel:
    """A torch module with gradients, frozen and in eval mode while it is attacked.

    net: maps raw input (B, ...) to scores (B, K); domain: the bounds of raw input, a pair or a Box;
    preprocess: applied to raw input before the net and differentiated through; one that declares a
    defence, as an `InputTransform` does, is attacked through.
    """

    access: Access = "gradients"

    def __init__(
        self,
        net: nn.Module,
        *,
        domain: Sequence[float] | Box = (0.0, 1.0),
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(net, nn.Module):
            raise ModelError(
                f"the net is a {type(net).__name__}; give a torch module, or wrap a function as "
                "FunctionModel(function)"
            )
        keep_freed()
        self.net = net
        self.domain = domain if isinstance(domain, Box) else Box(domain[0], domain[1])
        self.preprocess = preprocess
        # Its precision is asked at every query, and the way to it leads through all modules.
        self._weight = next(net.parameters(), None)

    def __repr__(self) -> str:
        return f"TorchModel({type(self.net).__name__}, domain={self.domain})"

    @property
    def device(self) -> torch.device:
        """Where the net's parameters live; the CPU if it has none."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    @property
    def defences(self) -> tuple[Defence, ...]:
        """What its preprocessing declares to be."""
        told = getattr(self.preprocess, "defence", None)
        return () if told is None else (told,)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...) with the graph that leads back to it; 1 forward."""
        # A first layer that works in place must not reach the caller's tensor.
        given, x = x.dtype, self._precise(x.clone())
        with answering(x):
            out = self.net(x if self.preprocess is None else self.preprocess(x))
        if isinstance(out, Tensor) and x.shape[0] == 1 and out.ndim < 2:
            # A network that squeezes its answer drops the axis of a batch of one.
            out = out.reshape(1, -1)
        if not isinstance(out, Tensor) or out.ndim not in (1, 2) or out.shape[0] != x.shape[0]:
            raise ModelError(
                f"the model answered {len(x)} inputs with {_form(out)}; it must return one row of "
                "scores for each input (B, K)"
            )
        if not out.is_floating_point():
            raise ModelError(
                f"the model answered with {str(out.dtype).removeprefix('torch.')}, which looks "
                "like labels; return scores, or give a function of kind python with access: labels"
            )
        if x.dtype != given:
            out = out.to(given)
        return out[:, None] if out.ndim == 1 else out

    def _precise(self, x: Tensor) -> Tensor:
        """The input at double precision where the net's weights have it: nothing is lost by that.

        The scores come back at the input's own, which attacks calculate in.
        """
        weight = self._weight
        return x if weight is None or weight.dtype != torch.float64 else x.double()

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        with torch.no_grad():
            return self.forward(x)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return largest(self.scores(x))

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
            # A number has a gradient of its own; to be given one, torch would import a compiler.
            (grad,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
        grad = torch.zeros_like(x) if grad is None else grad
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


def _form(out: object) -> str:
    """What a network has answered, in words that say what to change."""
    if isinstance(out, Tensor):
        return str(tuple(out.shape))
    found = f"an object of type {type(out).__name__}"
    if isinstance(getattr(out, "logits", None), Tensor):
        found += ", whose logits a module around it can return"
    return found


def largest(scores: Tensor) -> Tensor:
    """The class (B,) of the largest score (B, K); ModelError for one score, which names none."""
    if scores.shape[1] == 1:
        raise ModelError(
            "the model answers with one number for each input, which names no class by itself; "
            "return two scores, such as 0 and the logit, or set access to scores"
        )
    return scores.argmax(1)


def device_of(model: object) -> torch.device:
    """Where a model wants its input; the CPU if it does not say."""
    found = getattr(model, "device", None)
    return found if isinstance(found, torch.device) else torch.device("cpu")
