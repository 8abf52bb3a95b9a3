"""A random model, attacked through its mean over draws (EOT)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import Tensor

from .._errors import ModelError
from ..threat import Access
from ._ensemble import added, combined
from ._protocol import Gradient, Model, Objective
from ._torch import device_of, largest

T = TypeVar("T")


class Randomized:
    """A model with randomness inside, as the mean over its draws (Athalye et al. 2018, EOT).

    The objective and its gradient are means over `draws` fixed seeds, so that an attack sees a
    steady loss. Scores and labels come from as many other seeds: a success that fits only the
    attack's own draws does not count. combine: the scores are the logarithm of the mean
    probability, which is what a service that repeats or averages its answers decides by (one
    impossible draw ruins a mean of logarithms), or the mean logits, for goals other than a class.

    The same call gives the same answer. A draw belongs to a whole batch, though, so an answer does
    depend on the batch's size and order; draws from other generators than torch's stay random.
    """

    def __init__(
        self,
        model: Model,
        *,
        draws: int = 20,
        combine: Literal["probabilities", "logits"] = "probabilities",
    ) -> None:
        if draws < 1:
            raise ModelError(f"draws is {draws}; give at least 1")
        if combine not in ("probabilities", "logits"):
            raise ModelError(f"combine is {combine!r}; it is probabilities or logits")
        self.model, self.draws, self.combine = model, draws, combine
        self.domain = model.domain
        self.access: Access = model.access

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def _drawn(
        self, x: Tensor, ask: Callable[[], T], *, first: int = 0, draws: int | None = None
    ) -> list[T]:
        """An answer for each draw; torch's generators go on as if nothing had been drawn."""
        answers = []
        for seed in range(first, first + (self.draws if draws is None else draws)):
            with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
                torch.manual_seed(seed)
                answers.append(ask())
        return answers

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...) over fresh draws; `draws` forwards."""
        drawn = self._drawn(x, lambda: self.model.scores(x), first=self.draws)
        return combined(torch.stack(drawn), self.combine)

    def each(self, x: Tensor, draws: int = 20) -> list[Tensor]:
        """The scores (B, K) of single draws, which nothing else here uses; a forward each."""
        return self._drawn(x, lambda: self.model.scores(x), first=2 * self.draws, draws=draws)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...), the most frequent if there are no scores."""
        if self.access in ("gradients", "scores"):
            return largest(self.scores(x))
        drawn = self._drawn(x, lambda: self.model.labels(x), first=self.draws)
        return torch.stack(drawn).mode(0).values

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective's mean over draws and its gradient; `draws` forwards and backwards."""
        seen = self._drawn(x, lambda: self.model.gradient(x, objective))
        scores, values, gradients = zip(*seen, strict=True)
        mean, gradient = added(values) / self.draws, added(gradients) / self.draws
        return Gradient(combined(torch.stack(scores), self.combine), mean, gradient)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) and the gradients (B, J, ...) of the mean logits; J backwards a draw."""
        seen = self._drawn(x, lambda: self.model.jacobian(x, outputs))
        scores, gradients = zip(*seen, strict=True)
        return combined(torch.stack(scores), self.combine), added(gradients) / self.draws

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()
