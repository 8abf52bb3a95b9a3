"""The smoothed classifier as a model: what smoothing's certificates are of."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import BudgetError, ModelError
from ..models import Gradient, Model, Objective
from ..models._torch import device_of
from ..stats import binomial_test
from ..threat import Access
from ._noise import draw_keys, gaussian
from ._poll import decide

_ROWS, _VOTES = 4096, 250


class Prediction(NamedTuple):
    """The most frequent answers (B,), -1 where the votes do not tell, and the votes (B, K)."""

    answer: NDArray[np.int64]
    votes: NDArray[np.int64]


class SmoothedClassifier:
    """The model's most frequent answer under Gaussian noise (Cohen et al. 2019, eq. 1).

    sigma: the noise's standard deviation in units of raw input; noise leaves the domain, the input
    does not. Its answer is that of `draws` votes, the same noise for all inputs and calls; its
    scores are the mean of the logarithms of probabilities, with the votes' winner on top, and the
    gradient is that of the mean (Athalye et al. 2018, EOT). An attack may follow the noise of so
    few draws: `predict` tells by others where the answer is sure.
    """

    def __init__(self, model: Model, *, sigma: float, draws: int = 32, seed: int = 0) -> None:
        if not (np.isfinite(sigma) and sigma > 0):
            raise ModelError(f"sigma is {sigma:g}; give a finite number above 0")
        if draws < 1:
            raise ModelError(f"draws is {draws}; give at least 1")
        self.model, self.sigma, self.draws, self.seed = model, sigma, draws, seed
        self.domain = model.domain
        self.access: Access = model.access

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def facts(self) -> dict[str, Any]:
        """What tells it from others, for reports."""
        return {"sigma": self.sigma, "draws": self.draws, "seed": self.seed}

    def _keys(self, draws: int, seed: int, device: torch.device, *, stream: int) -> Tensor:
        numbers = torch.arange(draws, device=device)
        return draw_keys(torch.full_like(numbers, stream), numbers, seed)

    def _around(self, x: Tensor, first: int, draws: int) -> Tensor:
        """Points (M, B, ...) around x (B, ...): draws from the first on."""
        keys = self._keys(first + draws, self.seed, x.device, stream=0)[first:]
        noise = gaussian(keys, x[0].numel()).mul_(self.sigma)
        return x + noise.reshape(draws, 1, *x.shape[1:]).to(x.dtype)

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...), the votes' winner on top; `draws` forwards."""
        each = max(1, _ROWS // len(x))
        parts = []
        for begin in range(0, self.draws, each):
            points = self._around(x, begin, min(each, self.draws - begin))
            parts.append(_split(self.model.scores(points.flatten(0, 1)), points))
        return _voted(torch.cat(parts))

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); `draws` forwards."""
        if self.access in ("gradients", "scores"):
            return self.scores(x).argmax(1)
        noisy = self._around(x, 0, self.draws)
        return torch.stack([self.model.labels(each) for each in noisy]).mode(0).values

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective of the mean, its gradient, and the scores.

        `draws` forwards and backwards.
        """
        points = self._around(x, 0, self.draws)

        def together(scores: Tensor) -> Tensor:
            return objective(_mean(_split(scores, points)))

        seen = self.model.gradient(points.flatten(0, 1), together)
        gradient = seen.gradient.reshape(points.shape).sum(0)
        return Gradient(_voted(_split(seen.scores, points)), seen.values, gradient)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) and the gradients (B, J, ...) of chosen means."""
        seen = [self.gradient(x, partial(_chosen, column)) for column in outputs.unbind(1)]
        return seen[0].scores, torch.stack([each.gradient for each in seen], 1)

    def predict(
        self, x: Tensor, *, draws: int = 1000, alpha: float = 0.001, seed: int | None = None
    ) -> Prediction:
        """The answers to x (B, ...) by fresh votes, each wrong with probability at most alpha.

        A two-sided binomial test of the first two answers (Hung and Fithian 2019), by the same
        draws for all inputs and calls with one seed, which are none of the attack's. Raises
        BudgetError for draws that can never be sure.
        """
        if binomial_test(draws, draws) > alpha:
            needed = next(n for n in count(draws) if binomial_test(n, n) <= alpha)
            raise BudgetError(
                f"draws is {draws}: even if all agree they are not sure at alpha {alpha:g}; give "
                f"at least {needed}"
            )
        fresh = self._keys(draws, self.seed if seed is None else seed, x.device, stream=1)
        given = torch.stack([self._votes(row, fresh) for row in x]).cpu().numpy()
        classes = max(int(given.max()) + 1, 2)
        votes = np.stack([np.bincount(row[row >= 0], minlength=classes) for row in given])
        top = np.sort(votes, 1)[:, -2:]
        sure = binomial_test(top[:, 1], top.sum(1)) <= alpha
        return Prediction(np.where(sure, votes.argmax(1), -1), votes)

    def _votes(self, x: Tensor, keys: Tensor) -> Tensor:
        """The model's answers (M,) to one input under the noise of these keys (M,)."""
        parts = []
        for part in torch.split(keys, _VOTES):
            noise = gaussian(part, x.numel()).mul_(self.sigma).reshape(-1, *x.shape)
            parts.append(decide(self.model, noise.to(x.dtype) + x))
        return torch.cat(parts)

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()


def _chosen(column: Tensor, scores: Tensor) -> Tensor:
    return scores.gather(1, column[:, None])[:, 0]


def _split(scores: Tensor, points: Tensor) -> Tensor:
    """Scores (M, B, K) of points (M, B, ...)."""
    if scores.shape[1] < 2:
        raise ModelError(
            "the model answers with 1 score; give it one for each class, so that votes can differ"
        )
    return scores.reshape(*points.shape[:2], -1)


def _mean(scores: Tensor) -> Tensor:
    """Mean of the logarithms of probabilities (B, K) over draws (M, B, K)."""
    return scores.log_softmax(2).mean(0)


def _voted(scores: Tensor) -> Tensor:
    """The mean (B, K) over draws (M, B, K), its highest given to the votes' winner in exchange."""
    mean = _mean(scores)
    votes: Tensor = torch.nn.functional.one_hot(scores.argmax(2), scores.shape[2]).sum(0)
    # Of classes with equal votes the more probable wins.
    winner = (votes + mean.exp() / 2).argmax(1, keepdim=True)
    first = mean.argmax(1, keepdim=True)
    swapped = mean.scatter(1, first, mean.gather(1, winner))
    return swapped.scatter(1, winner, mean.gather(1, first))
