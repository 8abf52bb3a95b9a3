"""A model with a detector beside it, for attackers who must evade both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..threat import Access
from ._ensemble import weighted
from ._held import held_modules
from ._protocol import Gradient, Model, Objective
from ._torch import device_of


class Detecting:
    """A model whose last score is positive while a detector stays silent; for `threat.Evading`.

    detector: from raw input (B, ...) to suspicion (B,), differentiable where the model is; it flags
    what lies above the threshold.
    """

    def __init__(
        self, model: Model, detector: Callable[[Tensor], Tensor], *, threshold: float
    ) -> None:
        self.model, self.detector, self.threshold = model, detector, threshold
        self.domain = model.domain
        self.access: Access = model.access

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def _silence(self, x: Tensor) -> Tensor:
        suspicion = self.detector(x.clone())
        threshold = suspicion.new_tensor(self.threshold)
        # What lies exactly on the threshold is not flagged, so its silence must be positive.
        return torch.nextafter(threshold, threshold.new_tensor(torch.inf)) - suspicion

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K + 1) of raw input x (B, ...), the detector's silence last; 1 forward."""
        with torch.no_grad():
            return torch.cat((self.model.scores(x), self._silence(x)[:, None]), 1)

    def labels(self, x: Tensor) -> Tensor:
        """Class and silence (0 or 1) of raw input, (B, 2) as `Evading.decide` has it; 1 forward."""
        with torch.no_grad():
            labels = self.model.labels(x)
            return torch.stack((labels, (self._silence(x) > 0).to(labels.dtype)), 1)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective and its gradient through model and detector; 2 forwards, 1 backward."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            silence = self._silence(x)
            scores = torch.cat((self.model.scores(x), silence[:, None]), 1).detach()
            values = objective(scores.requires_grad_())
            (weight,) = torch.autograd.grad(
                values.sum(), scores, allow_unused=True, materialize_grads=True
            )
            back = _back(silence, x, weight[:, -1])
        gradient = self.model.gradient(x, weighted(weight[:, :-1])).gradient
        return Gradient(scores.detach(), values.detach(), gradient + back)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K + 1) and the gradients (B, J, ...) of chosen ones; 2 forwards."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            silence = self._silence(x)
            back = _back(silence, x, torch.ones_like(silence))
        own = self.model.scores(x).shape[1]
        scores, gradients = self.model.jacobian(x, outputs.clamp_max(own - 1))
        last = (outputs == own).reshape(*outputs.shape, *(1,) * (x.ndim - 1))
        return (
            torch.cat((scores, silence[:, None]), 1).detach(),
            torch.where(last, back[:, None], gradients),
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """The model and a detector that is a module are held."""
        with self.model.held(), held_modules(self.detector):
            yield


def _back(silence: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    if not silence.requires_grad:
        return torch.zeros_like(x)
    total = (silence * weight).sum()
    (back,) = torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)
    return back


def detects(model: object) -> bool:
    """Whether a model, or one inside it, has a detector beside it."""
    inner = (getattr(model, "model", None), *getattr(model, "models", ()))
    return isinstance(model, Detecting) or any(detects(one) for one in inner if one is not None)
