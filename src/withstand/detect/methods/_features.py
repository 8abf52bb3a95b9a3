"""Methods that score one set of features at a time: the input, or each layer's activations."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..._errors import ConfigError, DataError
from .._contract import Method, Needs, Observation, State
from ._answers import two
from ._tails import edges, rarities, several_tails


@dataclass(frozen=True, kw_only=True)
class OnFeatures(Method):
    """A score of features (B, F); of several layers, whose scores differ in scale, the rarest.

    of: input, flattened, or activations. layers: those to look at by name, None for three spread
    over the network. One set's score is given as it is; several are put on one scale by their
    benign quantiles, for which a fifth of the inputs is held out of the rest.
    """

    of: Literal["activations", "input"] = "activations"
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.of not in ("activations", "input"):
            raise ConfigError(f"of is {self.of!r}; it is activations or input")
        if self.of == "input":
            if self.layers:
                raise ConfigError("of is input, which has no layers; leave layers out")
            object.__setattr__(self, "layers", ())

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return self.of

    @abstractmethod
    def learned(self, features: Tensor, y: Tensor) -> State:
        """What is learned of benign features (N, F) with classes (N,)."""

    @abstractmethod
    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        """The score (B,) of features (B, F) to which the model answered with the classes (B,)."""

    def fit(self, seen: Observation) -> State:
        views, answers = self._views(seen), _answers(seen)
        y = answers if seen.y is None else seen.y
        if len(views) == 1:
            return _numbered(0, self.learned(views[0], y))
        state: State = {}
        held, scores = torch.arange(len(y), device=y.device) % 5 == 4, []
        for i, features in enumerate(views):
            part = self.learned(features[~held], y[~held])
            scores.append(self.suspicion(part, features[held], answers[held]))
            state |= _numbered(i, part)
        knots = several_tails(torch.stack(scores, 1))
        return state | {"scales": knots, "edges": edges(knots)}

    def score(self, state: State, seen: Observation) -> Tensor:
        views, answers = self._views(seen), _answers(seen)
        parts = [part_of(state, i) for i in range(len(views))]
        found = [
            self.suspicion(part, features, answers)
            for part, features in zip(parts, views, strict=True)
        ]
        if len(found) == 1:
            return found[0]
        return rarities(state["scales"], torch.stack(found), state["edges"]).amax(0)

    def _views(self, seen: Observation) -> list[Tensor]:
        if self.of == "input":
            return [seen.x.flatten(1)]
        return list(seen.activations.values())


def enough(n: int, least: int, what: str) -> None:
    """Raise DataError for fewer than `least` benign inputs."""
    if n < least:
        raise DataError(f"{n} benign inputs are too few for {what}; give at least {least}")


def _answers(seen: Observation) -> Tensor:
    """The model's classes (B,); all 0 where only the input is seen."""
    if seen.scores.shape[1] == 0:
        return seen.x.new_zeros(len(seen.x), dtype=torch.int64)
    return two(seen.scores).argmax(1)


def _numbered(i: int, part: State) -> State:
    return {f"{i}.{name}": value for name, value in part.items()}


def part_of(state: State, i: int) -> State:
    """What was learned of the set of features i."""
    mark = f"{i}."
    return {name[len(mark) :]: value for name, value in state.items() if name.startswith(mark)}
