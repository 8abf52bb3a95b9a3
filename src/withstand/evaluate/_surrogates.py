"""The attacker's own models: do they fit the attacked one, and what are they asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError, WithstandError
from ..attacks import batch_floor
from ..models import Ensemble, Gradient, Model, Objective, adapt, describe
from ..stats import Interval, wilson
from ..threat import Access, Box, Goal, MultiLabel, Regression, Targeted
from ._answers import Answers
from ._report import Surrogate

Surrogates = Sequence[Model] | Mapping[str, Model]


class Source:
    """A surrogate as an attacker uses it: answers as logits, passes over single samples counted."""

    access: Access = "gradients"
    accuracy: Interval

    def __init__(self, name: str, model: Model, domain: Box) -> None:
        self.name, self.model, self.domain = name, model, domain
        self.device = getattr(model, "device", torch.device("cpu"))
        self.described = describe(model)
        self.forwards = self.backwards = 0

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        self.forwards += len(x)
        return self.model.scores(x)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        self.forwards += len(x)
        return self.model.labels(x)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective and its gradient at x (B, ...); 1 forward and 1 backward."""
        self.forwards += len(x)
        self.backwards += len(x)
        return self.model.gradient(x, objective)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) and gradients (B, J, ...) of chosen outputs; 1 forward and J backwards."""
        self.forwards += len(x)
        self.backwards += outputs.numel()
        return self.model.jacobian(x, outputs)

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()

    def told(self) -> Surrogate:
        """What the report says of it."""
        return Surrogate(
            name=self.name,
            accuracy=self.accuracy,
            forwards=self.forwards,
            backwards=self.backwards,
        )


def named(surrogates: Surrogates) -> dict[str, Model]:
    """Surrogates by name: the one given, or that of the class."""
    if isinstance(surrogates, Mapping):
        return dict(surrogates)
    names = numbered([type(getattr(model, "net", model)).__name__ for model in surrogates])
    return dict(zip(names, surrogates, strict=True))


def numbered(names: Sequence[str]) -> list[str]:
    """The names, each with its place if one of them is there twice."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{name} {place}" for place, name in enumerate(names, 1)]


def sources(surrogates: Surrogates, domain: Box) -> list[Source]:
    """The surrogates of a model with this domain; raises ModelError for one that does not fit."""
    found = []
    for name, model in named(surrogates).items():
        if not isinstance(model, Model):
            raise ModelError(
                f"surrogate {name} is a {type(model).__name__}; wrap it first, e.g. "
                "TorchModel(net, domain=(0, 1))"
            )
        if model.access != "gradients":
            raise ModelError(
                f"surrogate {name} gives {model.access}, examples are made with gradients; give a "
                "torch or ONNX model, or train_surrogate(...) on its answers"
            )
        if not (
            _same(model.domain.lower, domain.lower) and _same(model.domain.upper, domain.upper)
        ):
            raise ModelError(
                f"surrogate {name} has the domain {_span(model.domain)}, the model "
                f"{_span(domain)}; give both the same raw input, with a Pipeline where one needs "
                "another scale"
            )
        found.append(Source(name, model, domain))
    return found


def fit(
    found: Sequence[Source], x: Tensor, y: Tensor, goal: Goal, classes: int, exact: bool, batch: int
) -> None:
    """See that surrogates take x (N, ...) and know the classes; note how often they are right.

    exact: the model's number of classes is known, not only the highest that it answered with.
    Raises ModelError.
    """
    for source in found:
        here, there = x.to(source.device), y.to(source.device)
        with source.held():
            try:
                raw = source.scores(here[:batch])
            except WithstandError as error:
                raise ModelError(f"surrogate {source.name}: {error}") from None
            if not isinstance(goal, Regression | MultiLabel):
                source.model, _ = adapt(source.model, raw)
                raw = source.scores(here[:1])
            known = raw.shape[1]
            if known < classes or (exact and known != classes):
                raise ModelError(
                    f"surrogate {source.name} answers with {known} scores, the model with "
                    f"{classes}{'' if exact else ' or more'}; give a surrogate of the same "
                    "classes in the same order"
                )
            asked = Answers(model=source, goal=goal, labels=False, batch=batch)
            raw = asked.raw(here)
            answer = asked.read(raw)
            right = ~goal.hit(answer, there) & raw.isfinite().all(1)
            if isinstance(goal, Targeted):
                # Another wrong answer than the wanted one is no right one either.
                right &= answer == there
            source.accuracy = wilson(int(right.sum()), len(right))


def together(found: Sequence[Source]) -> list[tuple[str, Model]]:
    """What examples are made on, by name: first the mean of the logits of all, if several."""
    each: list[tuple[str, Model]] = [(source.name, source) for source in found]
    if len(found) < 2:
        return each
    return [(f"all {len(found)} surrogates", Ensemble(found, combine="logits")), *each]


def steady(made_on: Sequence[tuple[str, Model]], x: Tensor, batch: int) -> bool:
    """Whether the kernels of all answer a row of x (N, ...) alike in any batch."""
    found = True
    for _, model in made_on:
        with model.held():
            here = x.to(getattr(model, "device", x.device))
            found &= batch_floor(model, here, batch) is not None
    return found


def _same(bound: Any, other: Any) -> bool:
    try:
        return bool(np.all(np.asarray(bound) == np.asarray(other)))
    except ValueError:
        return False


def _span(domain: Box) -> str:
    return f"[{np.min(domain.lower):.6g}, {np.max(domain.upper):.6g}]"
