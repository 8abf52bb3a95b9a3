"""Several models as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError
from ..threat import ACCESS, Access
from ._defence import Adaptive, Defence
from ._protocol import Gradient, Model, Objective
from ._torch import device_of, largest


class Ensemble:
    """The mean of several models over the same input, as open as its least open member.

    combine: probabilities (the members' scores are logits, the logarithm of their mean probability
    is the score), logits (the mean score), or vote (the most frequent label; labels only). A
    gradient costs 2 forwards and 1 backward of each member. Raises ModelError for members that do
    not belong together; `adapt` those that answer with probabilities first.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        combine: Literal["probabilities", "logits", "vote"] = "probabilities",
    ) -> None:
        if not models:
            raise ModelError("an ensemble of 0 models; give at least one")
        if combine not in ("probabilities", "logits", "vote"):
            raise ModelError(f"combine is {combine!r}; it is probabilities, logits or vote")
        self.models, self.combine = tuple(models), combine
        self.domain = models[0].domain
        for model in models:
            for bound in ("lower", "upper"):
                if not np.array_equal(getattr(model.domain, bound), getattr(self.domain, bound)):
                    raise ModelError(
                        "the ensemble's members differ in domain; give all of them the same raw "
                        "input, with a Pipeline where one needs another scale"
                    )
        # The later in ACCESS, the less a model gives away.
        least = max((model.access for model in models), key=ACCESS.index)
        if combine == "vote":
            least = max(least, "labels", key=ACCESS.index)
        self.access: Access = least

    @property
    def defences(self) -> tuple[Defence, ...]:
        """That it votes, which hides the gradients of members who have some."""
        if self.combine != "vote" or any(m.access != "gradients" for m in self.models):
            return ()
        told = "through the mean of the members' probabilities (BPDA)"
        name = f"vote of {len(self.models)}"
        return (Defence(name=name, masks=True, adaptive=Adaptive(told=told)),)

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.models[0])

    def _combined(self, members: Sequence[Tensor]) -> Tensor:
        if len({scores.shape for scores in members}) > 1:
            counts = ", ".join(str(scores.shape[1]) for scores in members)
            raise ModelError(f"the ensemble's members give {counts} scores; give the same number")
        return combined(torch.stack(list(members)), self.combine)

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward of each member."""
        if self.combine == "vote":
            raise ModelError("an ensemble that votes has labels only; set access to labels")
        return self._combined([model.scores(x) for model in self.models])

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...), the lowest of equals; 1 forward of each member."""
        if self.access in ("gradients", "scores"):
            return largest(self.scores(x))
        return torch.stack([model.labels(x) for model in self.models]).mode(0).values

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective of the combined scores and its gradient with respect to x (B, ...)."""
        if self.access != "gradients":
            raise ModelError(
                f"this ensemble has no gradients; its access is {self.access}, attack it with that"
            )
        members = [model.scores(x) for model in self.models]
        scores, values, weights = self._weights(members, objective)
        return Gradient(scores, values, self._pulled(x, weights))

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Combined scores (B, K) and the gradients (B, J, ...) of each row's chosen outputs.

        J + 1 forwards and J backwards of each member.
        """
        members = [model.scores(x) for model in self.models]
        rows = []
        for column in outputs.unbind(1):
            _, _, weights = self._weights(members, picked(column))
            rows.append(self._pulled(x, weights))
        return self._combined(members), torch.stack(rows, 1)

    def _weights(
        self, members: Sequence[Tensor], objective: Objective
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Combined scores, the objective, and its gradient with respect to each member's scores."""
        with torch.enable_grad():
            leaves = [scores.detach().requires_grad_() for scores in members]
            scores = self._combined(leaves)
            values = objective(scores)
            weights = torch.autograd.grad(
                values.sum(), leaves, allow_unused=True, materialize_grads=True
            )
        return scores.detach(), values.detach(), weights

    def _pulled(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.models, weights, strict=True)
        parts = [model.gradient(x, weighted(weight)).gradient for model, weight in pairs]
        return added(parts)

    @contextmanager
    def held(self) -> Iterator[None]:
        """All members are held."""
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.held())
            yield


class Counted(Ensemble):
    """The vote of several models as scores: the mean probability's, with the vote's winner ahead.

    Labels are those of the vote, gradients those of the mean.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__(models)

    def _combined(self, members: Sequence[Tensor]) -> Tensor:
        mean, seen = super()._combined(members), torch.stack([m.detach() for m in members])
        winner = seen.argmax(2).mode(0).values[:, None]
        behind = mean.detach().amax(1, keepdim=True) - mean.detach().gather(1, winner)
        # Enough to be ahead in float32 at the size that logarithms of probabilities have.
        lift = torch.where(behind > 0, behind + 1e-3 * (1 + behind), 0.0)
        return mean.scatter_add(1, winner, lift)


def combined(members: Tensor, combine: str) -> Tensor:
    """Scores (B, K) of members' scores (M, B, K): their mean, or their mean probability's log."""
    if combine == "logits":
        return added(members.unbind()) / len(members)
    if members.shape[2] == 1:
        raise ModelError(
            "a model answers with one number for each input, of which there is no mean "
            "probability; return two scores, such as 0 and the logit, or combine logits"
        )
    # In logarithms throughout, since a probability that underflows has no gradient, and in float64,
    # since a row's last bit would depend on the rows beside it.
    logs = members.double().log_softmax(2)
    return (logs.logsumexp(0) - math.log(len(members))).to(members.dtype)


def added(parts: Sequence[Tensor]) -> Tensor:
    """The sum, part by part: reductions over an axis sum in an order that the batch decides."""
    return reduce(torch.add, parts)


def weighted(weight: Tensor) -> Objective:
    """The objective whose gradient with respect to scores (B, K) is weight (B, K)."""
    return lambda scores: (scores * weight).sum(1)


def picked(outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """The objective that is one output (B,) of each row."""
    return lambda scores: scores.gather(1, outputs[:, None])[:, 0]
