"""Feature matching: the activations of a benign input of another class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...attacks import Ask, Attack, Problem, Query, Seen, project
from ...models import Model
from ...threat import Access
from .._detector import Detector
from .._observe import Observer, default_layers, layer_names
from ._view import Suspicion, Watched


class _State(NamedTuple):
    points: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMatching(Attack):
    """The activations of a benign guide of another class (Sabour et al. 2016), for the goal Past.

    guides: the activations (G, F) of benign inputs, answers: their classes (G,). Each sample is
    drawn to its `nearest` ones of another class, one after the other, by steps along the sign of
    the gradient that fall to nothing (the paper has L-BFGS). Past detectors on activations, which
    then see what they know. 1 forward + 1 backward a step.
    """

    guides: Tensor
    answers: Tensor
    nearest: int = 2
    steps: int = 100
    needs: ClassVar[Access] = "gradients"
    norms: ClassVar = ("linf", "l2")

    @property
    def lanes(self) -> int:
        """Guides."""
        return self.nearest

    @property
    def plan_cost(self) -> tuple[int, int]:
        return (1, 0)

    def plan(self, problem: Problem, ask: Ask) -> Tensor:
        """The places of the nearest guides."""
        seen = ask.scores(problem)[:, : self.guides.shape[1]]
        distance = torch.cdist(seen, self.guides)
        distance = torch.where(self.answers == problem.y[:, None], torch.inf, distance)
        found = distance.topk(min(self.nearest, len(self.guides)), largest=False)
        return torch.where(found.values.isfinite(), found.indices, -1)

    def init(self, problem: Problem) -> _State:
        return _State(problem.x, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        wanted = self.guides[problem.target.clamp_min(0)]

        def objective(scores: Tensor) -> Tensor:
            return -(scores[:, : wanted.shape[1]] - wanted).square().sum(1)

        return Query(state.points, (state.step <= self.steps) & (problem.target >= 0), objective)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.gradient is not None
        gradient = seen.gradient
        if problem.norm == "linf":
            direction = gradient.sign()
        else:
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
            direction = gradient / problem.column(length)
        size = problem.column(5 / self.steps * problem.eps * (1 - state.step / self.steps))
        return _State(project(problem, state.points + size * direction), state.step + 1)


def matching(
    detector: Detector,
    benign: Tensor,
    *,
    suspicion: Suspicion | None = None,
    target: int | None = None,
    steps: int,
    nearest: int = 2,
) -> tuple[Watched, FeatureMatching] | None:
    """The attack towards those of the benign inputs x (G, ...) that are not flagged, and its view.

    target: the class that the guides are of. None where there are no layers to match, or no guide.
    """
    model = detector.model
    layers = detector.layers or _layers(model, benign)
    if not layers:
        return None
    wanted = ~detector.flags(benign)
    if target is not None:
        wanted &= model.labels(benign) == target
    silent = benign[wanted]
    if not len(silent):
        return None
    looked = Observer(model=model, needs="activations", layers=layers)
    with model.held():
        seen = looked.over(silent, None, 256)
    scale = tuple(float(seen.activations[name].square().mean().sqrt()) + 1e-12 for name in layers)
    view = Watched(detector, suspicion=suspicion, layers=layers, scale=scale)
    attack = FeatureMatching(
        guides=view.features(seen),
        answers=seen.scores.argmax(1),
        steps=steps,
        nearest=nearest,
    )
    return view, attack


def _layers(model: Model, x: Tensor) -> tuple[str, ...]:
    return default_layers(model, x[:1]) if layer_names(model, x[:1]) else ()
