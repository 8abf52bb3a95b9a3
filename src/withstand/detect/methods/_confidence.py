"""How unsure the model itself is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..._errors import ConfigError
from .._contract import Method, Needs, Observation, State
from ._answers import two


@dataclass(frozen=True, kw_only=True)
class Confidence(Method):
    """A model that is unsure is suspicious.

    of: probability (1 minus the highest, Hendrycks and Gimpel 2017), margin (the lead of the best
    score over the second, negated), or energy (the negated log-sum-exp of the scores over the
    temperature, times it; Liu et al. 2020). Catches examples that barely cross the boundary; strong
    attacks make the model surer than it was. No extra pass.
    """

    of: Literal["probability", "margin", "energy"] = "probability"
    temperature: float = 1.0
    needs: ClassVar[Needs] = "scores"
    reference: ClassVar[str] = "Hendrycks and Gimpel 2017; Liu et al. 2020"

    def __post_init__(self) -> None:
        if self.of not in ("probability", "margin", "energy"):
            raise ConfigError(f"of is {self.of!r}; it is probability, margin or energy")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature:g}; give more than 0")

    @property
    def highest(self) -> float | None:
        return 1.0 if self.of == "probability" else None

    def fit(self, seen: Observation) -> State:
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        scores = two(seen.scores)
        if self.temperature != 1:
            scores = scores / self.temperature
        if self.of == "energy":
            return -self.temperature * scores.logsumexp(1)
        if self.of == "margin":
            best = scores.topk(2, dim=1).values
            return best[:, 1] - best[:, 0]
        # The sum of the others', since 1 minus a probability near 1 is rounded to nothing.
        return scores.softmax(1).scatter(1, scores.argmax(1, keepdim=True), 0.0).sum(1)
