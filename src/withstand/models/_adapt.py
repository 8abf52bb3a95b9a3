"""Models that answer with probabilities, or with one number, as attacks need them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from ..threat import Access
from ._protocol import Gradient, Model, Objective
from ._threshold import Thresholded

# Far below what float32 tells apart from 0 in a sum, and its inverse still leaves room for weights.
_LEAST = 1e-30


def adapt(model: Model, scores: Tensor) -> tuple[Model, list[str]]:
    """The classifier with its answers as logits, and what was done about them in sentences.

    scores: the model's answers (B, K) or (B,) to some clean inputs. If all rows are probabilities,
    their logarithm is taken, whose margins do not saturate; one number becomes two classes.
    """
    if isinstance(model, Thresholded):
        # The threshold is one of probabilities: behind logarithms it is where it is meant to be.
        inner, notes = adapt(model.model, model.unshifted(scores))
        return Thresholded(inner, model.threshold), notes
    single = scores.ndim == 1 or scores.shape[1] == 1
    if single and bool(((scores >= 0) & (scores <= 1)).all()):
        return Adapted(model, "probability"), [
            "The model answers with one number from 0 to 1, taken as one probability p of class 1; "
            "it is attacked as two classes with the scores log(1 - p) and log(p)."
        ]
    if single:
        return Adapted(model, "logit"), [
            "The model answers with one logit z; it is attacked as two classes with the scores 0 "
            "and z."
        ]
    sums = scores.double().sum(1)
    if bool((scores >= 0).all()) and bool(((sums - 1).abs() <= 1e-3).all()):
        return Adapted(model, "probabilities"), [
            "The model answers with probabilities; it is attacked through their logarithm."
        ]
    return model, []


class Adapted:
    """A classifier with its answers as logits; kind: what it answers with itself."""

    def __init__(
        self, model: Model, kind: Literal["probabilities", "probability", "logit"]
    ) -> None:
        self.model, self.kind = model, kind
        self.domain = model.domain
        self.access: Access = model.access

    def _changed(self, scores: Tensor) -> Tensor:
        scores = scores[:, None] if scores.ndim == 1 else scores
        if self.kind == "logit":
            return torch.cat((torch.zeros_like(scores), scores), 1)
        if self.kind == "probability":
            scores = torch.cat((1 - scores, scores), 1)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp_min(_LEAST).log()

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        return self._changed(self.model.scores(x))

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return self.scores(x).argmax(1)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective of the changed scores and its gradient; 1 forward and 1 backward."""
        seen = self.model.gradient(x, lambda scores: objective(self._changed(scores)))
        return seen._replace(scores=self._changed(seen.scores))

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Changed scores (B, K) and the gradients (B, J, ...) of chosen ones; J backwards."""
        # Each changed score depends on one raw score only: itself, or the single one.
        source = outputs if self.kind == "probabilities" else torch.zeros_like(outputs)
        raw, gradients = self.model.jacobian(x, source)
        raw = raw[:, None] if raw.ndim == 1 else raw
        with torch.enable_grad():
            taken = raw.gather(1, source).detach().requires_grad_()
            rows, columns = outputs.shape
            changed = self._changed(taken.reshape(-1, 1))
            chosen = outputs if changed.shape[1] == 2 else torch.zeros_like(outputs)
            picked = changed.reshape(rows, columns, -1).gather(2, chosen[:, :, None])
            (slope,) = torch.autograd.grad(picked.sum(), taken)
        return self._changed(raw), gradients * slope.reshape(*slope.shape, *(1,) * (x.ndim - 1))

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()
