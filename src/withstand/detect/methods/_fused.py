"""Several methods as one, calibrated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import MODALITIES, NEEDS, Method, Modality, Needs, Observation, State
from ._confidence import Confidence
from ._features import enough
from ._mahalanobis import Mahalanobis
from ._tails import rarity, tails


@dataclass(frozen=True, kw_only=True)
class Fused(Method):
    """Several methods on one observation, joined by their conformal p-values.

    Each part's score becomes -log of its p-value among benign inputs that the parts were not fitted
    to, a fourth of them, and by joins these: fisher adds them up (Fisher 1932), for parts that see
    something each; max takes the largest, for parts of which one sees something; harmonic is the
    -log of the harmonic mean of the p-values (Wilson 2019), between the two. The joined score is
    calibrated once as a whole, so that it keeps the wanted false-positive rate however the parts
    depend on each other; flagging what any part flags would add their rates up. The cost is one
    forward and the parts' passes.
    """

    parts: tuple[Method, ...] = (Confidence(), Mahalanobis())
    by: Literal["fisher", "max", "harmonic"] = "fisher"
    reference: ClassVar[str] = "Fisher 1932; Wilson 2019; Vovk et al. 2005"

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("there are no parts; give at least one method")
        if self.by not in ("fisher", "max", "harmonic"):
            raise ConfigError(f"by is {self.by!r}; it is fisher, max or harmonic")

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return max((part.needs for part in self.parts), key=NEEDS.index)

    @property
    def modalities(self) -> tuple[Modality, ...]:  # type: ignore[override]
        return tuple(m for m in MODALITIES if all(m in part.modalities for part in self.parts))

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return any(part.differentiable for part in self.parts)

    @property
    def attack_aware(self) -> bool:  # type: ignore[override]
        return any(part.attack_aware for part in self.parts)

    @property
    def passes(self) -> float:
        return sum(part.passes for part in self.parts)

    @property
    def layers(self) -> tuple[str, ...] | None:
        named = [part.layers for part in self.parts]
        if None in named:
            return None
        return tuple(dict.fromkeys(name for names in named for name in names or ()))

    def at(self, layers: tuple[str, ...]) -> Fused:
        return replace(self, parts=tuple(part.at(layers) for part in self.parts))

    def fit(self, seen: Observation) -> State:
        enough(len(seen.x), 20, "a part's reference scores")
        held = torch.arange(len(seen.x), device=seen.x.device) % 4 == 3
        state: State = {}
        for i, part in enumerate(self.parts):
            own = _own(part, seen)
            learned = part.fit(_rows(own, ~held))
            with torch.no_grad():
                batches = torch.split(held.nonzero()[:, 0], 256)
                scores = [part.score(learned, _rows(own, rows)) for rows in batches]
            learned = learned | {"rarity": tails(torch.cat(scores))}
            state |= {f"{i}/{name}": value for name, value in learned.items()}
        return state

    def score(self, state: State, seen: Observation) -> Tensor:
        rare = self.by_part(state, seen)
        if self.by == "max":
            return rare.amax(1)
        return rare.sum(1) if self.by == "fisher" else rare.logsumexp(1)

    def by_part(self, state: State, seen: Observation) -> Tensor:
        """The rarity (B, P) of each part's score, -log of its p-value: which of them it was."""
        columns = []
        for i, part in enumerate(self.parts):
            mark = f"{i}/"
            learned = {n[len(mark) :]: v for n, v in state.items() if n.startswith(mark)}
            columns.append(rarity(learned["rarity"], part.score(learned, _own(part, seen))))
        # A p-value is at most 1, so that one part's good opinion cannot outweigh the others' bad.
        return torch.stack(columns, 1).clamp_min(0)


def _own(part: Method, seen: Observation) -> Observation:
    """What the part is to see: the activations of its own layers."""
    names = seen.activations if part.layers is None else part.layers
    own = {name: seen.activations[name] for name in names}
    look = None if seen.look is None else partial(_looked, part, seen.look)
    return replace(seen, activations=own, look=look)


def _looked(part: Method, look: Callable[[Tensor], Observation], x: Tensor) -> Observation:
    return _own(part, look(x))


def _rows(seen: Observation, rows: Tensor) -> Observation:
    return replace(
        seen,
        x=seen.x[rows],
        scores=seen.scores[rows],
        activations={name: value[rows] for name, value in seen.activations.items()},
        y=None if seen.y is None else seen.y[rows],
    )
