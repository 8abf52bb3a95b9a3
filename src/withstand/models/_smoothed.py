"""A model on rugged ground, attacked along the slope of its surroundings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError
from ..threat import Access
from ._ensemble import added
from ._protocol import Gradient, Model, Objective
from ._torch import device_of


class Smoothed:
    """A model whose objective and gradient are means over noise around x (Tramèr et al. 2020).

    The noise is uniform, up to `width` in each feature, in opposite pairs, and the same for all
    inputs and calls. Scores and labels are the model's own.
    """

    def __init__(self, model: Model, *, width: float, draws: int = 16) -> None:
        if draws < 2 or draws % 2:
            raise ModelError(f"draws is {draws}; give an even number, at least 2")
        if not width > 0 or not np.isfinite(width):
            raise ModelError(f"width is {width:g}; give a finite number above 0")
        self.model, self.width, self.draws = model, width, draws
        self.domain = model.domain
        self.access: Access = model.access

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def _around(self, x: Tensor) -> Iterator[Tensor]:
        lower, upper = (torch.tensor(b).to(x) for b in self.domain.bounds(tuple(x.shape)))
        random = torch.Generator().manual_seed(0)
        for _ in range(self.draws // 2):
            noise = self.width * (2 * torch.rand(x.shape[1:], generator=random) - 1).to(x)
            for moved in (x + noise, x - noise):
                yield moved.clamp(lower, upper)

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        return self.model.scores(x)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return self.model.labels(x)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The mean objective and its gradient, with the scores at x; `draws` + 1 forwards."""
        seen = [self.model.gradient(moved, objective) for moved in self._around(x)]
        values = added([each.values for each in seen]) / self.draws
        gradient = added([each.gradient for each in seen]) / self.draws
        return Gradient(self.model.scores(x), values, gradient)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) at x and the mean gradients (B, J, ...) of chosen outputs (B, J)."""
        gradients = [self.model.jacobian(moved, outputs)[1] for moved in self._around(x)]
        return self.model.scores(x), added(gradients) / self.draws

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()
