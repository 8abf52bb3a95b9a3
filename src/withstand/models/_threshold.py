"""A decision threshold other than one half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import log

import torch
from torch import Tensor

from .._errors import ModelError
from ..threat import Access, Box
from ._protocol import Gradient, Model, Objective
from ._torch import device_of

TIE = 1e-6
"""By how much a score must be below its threshold to count as below."""


class Thresholded:
    """A model of two classes whose answer is 1 from a probability `threshold` of class 1 on.

    The score of class 0 is raised by the threshold's logit, so that the larger score is the answer
    for attacks, labels and figures alike. Raises ModelError for other than two classes.
    """

    def __init__(self, model: Model, threshold: float) -> None:
        self.model, self.threshold = model, threshold
        self.access: Access = model.access
        self.domain: Box = model.domain
        self._single = False
        # A little less, so that a probability that is the threshold is at it.
        self.shift = log(threshold / (1 - threshold)) - TIE
        if model.access in ("labels", "none"):
            raise ModelError(
                f"the model answers with labels, to which a threshold of {threshold:g} cannot be "
                "applied; give one with probabilities, or take model.threshold out"
            )

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def unshifted(self, scores: Tensor) -> Tensor:
        """What the model itself has answered (B, 1) or (B, 2), given scores (B, 2) of this one."""
        if self._single:
            return scores[:, 1:]
        return torch.stack((scores[:, 0] - self.shift, scores[:, 1]), 1)

    def _shifted(self, scores: Tensor) -> Tensor:
        scores = self._two(scores)
        return torch.stack((scores[:, 0] + self.shift, scores[:, 1]), 1)

    def _two(self, scores: Tensor) -> Tensor:
        self._single = scores.ndim == 2 and scores.shape[1] == 1
        if self._single:
            return torch.cat((torch.zeros_like(scores), scores), 1)
        if scores.ndim != 2 or scores.shape[1] != 2:
            raise ModelError(
                f"the model gives {scores.shape[-1]} scores; a threshold is for two classes, take "
                "model.threshold out"
            )
        return scores

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, 2) of raw input x (B, ...); 1 forward."""
        return self._shifted(self.model.scores(x))

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return self.scores(x).argmax(1)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective of the shifted scores, and its gradient; 1 forward and backward."""
        found = self.model.gradient(x, lambda scores: objective(self._shifted(scores)))
        return found._replace(scores=self._shifted(found.scores))

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, 2), and gradients (B, J, ...) of chosen outputs (B, J); J backwards."""

        def gradient(output: Tensor) -> Gradient:
            return self.gradient(x, lambda scores: scores.gather(1, output[:, None])[:, 0])

        found = [gradient(output) for output in outputs.unbind(1)]
        return found[0].scores, torch.stack([one.gradient for one in found], 1)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The model is held."""
        with self.model.held():
            yield
