"""A model and its detector as an attacker meets them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models import Gradient, Objective
from ...threat import Access, Evading
from .._contract import NEEDS, Needs, Observation
from .._detector import Detector
from .._observe import Observer
from ..methods._answers import two

Suspicion = Callable[[Observation], Tensor]
"""By how much the score (B,) exceeds the threshold, from what was observed."""

# More than any score, and small enough for float32 sums.
_FAR = 1e9


class Watched:
    """A model and its detector behind one forward; scores are (B, F + K + 1).

    First F activations of `layers`, each layer's over its `scale`, then the model's scores, and
    last the detector's silence, positive where nothing is flagged. suspicion: what is followed in
    the place of the detector's own.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        access: Access = "gradients",
        suspicion: Suspicion | None = None,
        layers: tuple[str, ...] = (),
        scale: tuple[float, ...] = (),
    ) -> None:
        self.detector, self.model = detector, detector.model
        self.suspicion: Suspicion = suspicion or detector.suspicion_seen
        self.domain, self.access = self.model.domain, access
        self.layers, self.scale = layers, scale
        least: Needs = "activations" if layers else "scores"
        needs: Needs = max(detector.method.needs, least, key=NEEDS.index)
        looked = tuple(dict.fromkeys((*detector.layers, *layers)))
        self.observer = Observer(model=self.model, needs=needs, layers=looked)

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return getattr(self.model, "device", torch.device("cpu"))

    def features(self, seen: Observation) -> Tensor:
        """The activations (B, F) of the layers side by side."""
        parts = [
            seen.activations[name] / scale
            for name, scale in zip(self.layers, self.scale, strict=True)
        ]
        return torch.cat(parts, 1) if parts else seen.scores[:, :0]

    def answer(self, x: Tensor) -> Tensor:
        """Scores (B, F + K + 1) of raw input x (B, ...), with the graph if x wants one."""
        seen = self.observer(x)
        # What lies exactly on the threshold is not flagged, so its silence must be positive.
        silence = torch.finfo(torch.float32).tiny - self.suspicion(seen)
        return torch.cat((self.features(seen), two(seen.scores), silence[:, None]), 1)

    def scores(self, x: Tensor) -> Tensor:
        """As `answer`, without a graph; 1 forward, and what the detector adds."""
        with torch.no_grad():
            return self.answer(x)

    def labels(self, x: Tensor) -> Tensor:
        """Class and silence (0 or 1) of raw input, (B, 2) as `Evading.decide` has it; 1 forward."""
        with torch.no_grad():
            labels = self.model.labels(x)
            silent = self.detector.suspicion(x) <= 0
            return torch.stack((labels, silent.to(labels.dtype)), 1)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective and its gradient through model and detector; 1 forward, 1 backward."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            scores = self.answer(x)
            values = objective(scores)
            gradient = torch.zeros_like(x)
            if values.requires_grad:
                (gradient,) = torch.autograd.grad(
                    values.sum(), x, allow_unused=True, materialize_grads=True
                )
        # Where a root or a logarithm has no slope there is none to follow.
        return Gradient(scores.detach(), values.detach(), gradient.nan_to_num(0.0, 0.0, 0.0))

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and the gradients (B, J, ...) of chosen ones; J forwards and backwards."""
        seen = [
            self.gradient(x, lambda s, o=o: s.gather(1, o[:, None])[:, 0])  # type: ignore[misc]
            for o in outputs.unbind(1)
        ]
        return seen[0].scores, torch.stack([one.gradient for one in seen], 1)

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()


class Rejecting(Watched):
    """A service that says of a flagged input that it is rejected, and nothing else.

    asked and rejected: inputs so far, and those of them that were flagged.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector, access="scores")
        self.asked = self.rejected = 0

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K + 1); those of the classes are 0 where the input is rejected."""
        told = super().scores(x)
        silent = told[:, -1:] > 0
        self.asked += len(x)
        self.rejected += int((~silent).sum())
        answered = torch.where(silent, told[:, :-1], 0.0)
        return torch.cat((answered, torch.where(silent, _FAR, -_FAR)), 1)


@dataclass(frozen=True)
class Past(Evading):
    """Evading, of a watched model.

    features: so many columns come before the model's scores. slack: so much of silence is wanted,
    since a score may differ in its last bits between batches. endless: never reached, so that
    attacks go on to their end.
    """

    features: int = 0
    slack: float = 0.0
    endless: bool = False

    def own(self, scores: Tensor) -> Tensor:
        """The scores without what comes before them."""
        return scores[:, self.features :]

    def decide(self, scores: Tensor) -> Tensor:
        own = self.own(scores)
        answer = self.goal.decide(own[:, :-1])
        return torch.stack((answer, (own[:, -1] > self.slack).to(answer.dtype)), 1)

    def hit(self, answer: Tensor, y: Tensor) -> Tensor:
        found = super().hit(answer, y)
        return torch.zeros_like(found) if self.endless else found

    def margin(self, scores: Tensor, y: Tensor) -> Tensor:
        return super().margin(self.own(scores), y)
