"""Steps in front of a model, so that the attacker's space is the input of the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..threat import Access, Box
from ._defence import Defence
from ._held import held_modules
from ._protocol import Gradient, Model, Objective
from ._torch import device_of


class Pipeline:
    """Tensor functions, applied in order, before a model; gradients flow through all of them.

    domain: the bounds of raw input, which the first step receives.
    """

    def __init__(
        self,
        steps: Sequence[Callable[[Tensor], Tensor]],
        model: Model,
        *,
        domain: Sequence[float] | Box = (0.0, 1.0),
    ) -> None:
        self.steps, self.model = tuple(steps), model
        self.access: Access = model.access
        self.domain = domain if isinstance(domain, Box) else Box(domain[0], domain[1])

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    @property
    def defences(self) -> tuple[Defence, ...]:
        """What its steps declare to be; `defences_of` adds the model's own."""
        return tuple(step.defence for step in self.steps if hasattr(step, "defence"))

    def enter(self, x: Tensor) -> Tensor:
        """What the model behind the steps receives for raw input x (B, ...)."""
        # A step that works in place must not reach the caller's tensor.
        x = x.clone()
        for step in self.steps:
            x = step(x)
        return x

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        with torch.no_grad():
            return self.model.scores(self.enter(x))

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        with torch.no_grad():
            return self.model.labels(self.enter(x))

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective and its gradient with respect to raw input; 1 forward and 1 backward."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            entered = self.enter(x)
            seen = self.model.gradient(entered, objective)
            return Gradient(seen.scores, seen.values, _back(entered, x, seen.gradient))

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) and the gradients (B, J, ...) of chosen outputs; 1 forward, J backwards."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            entered = self.enter(x)
            scores, gradients = self.model.jacobian(entered, outputs)
            rows = [_back(entered, x, gradient) for gradient in gradients.unbind(1)]
        return scores, torch.stack(rows, 1)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The model and the steps that are modules are held."""
        with self.model.held(), held_modules(*self.steps):
            yield


def _back(out: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    if not out.requires_grad:
        return torch.zeros_like(x)
    total = (out * gradient).sum()
    (back,) = torch.autograd.grad(
        total, x, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return back
