"""During an attack: what its path looks like, row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor

from ...attacks import Attack, Problem, Seen


@dataclass(kw_only=True)
class Path:
    """One row's way: at each step the loss, the length of the change over the radius, and the
    cosine between the gradient and the one before."""

    loss: list[float] = field(default_factory=list)
    reach: list[float] = field(default_factory=list)
    turn: list[float] = field(default_factory=list)

    @property
    def unconverged(self) -> bool:
        """Whether the best loss still rises in the last tenth, by a twentieth of its whole rise."""
        best = torch.tensor(self.loss, dtype=torch.float64).cummax(0).values
        rise = float(best[-1] - best[0])
        tail = max(ceil(len(best) / 10), min(10, len(best) // 2))
        return rise > 0 and float(best[-1] - best[-1 - tail]) > 0.05 * rise

    @property
    def inside(self) -> bool:
        """Whether the way never came to the edge of the region."""
        return max(self.reach) < 0.99

    @property
    def steadiness(self) -> float:
        """Mean cosine between gradients that follow each other, in the last half."""
        late = self.turn[len(self.turn) // 2 :]
        return sum(late) / len(late) if late else 1.0


class Trace:
    """The ways of an attack's rows, by lane and key."""

    def __init__(self) -> None:
        self._paths: dict[tuple[int, int], Path] = {}
        self._last: dict[tuple[int, int], Tensor] = {}

    def note(self, problem: Problem, seen: Seen) -> None:
        """Add one step of all rows."""
        assert seen.loss is not None
        assert seen.gradient is not None
        lengths = _length(seen.points - problem.x, problem.norm) / problem.eps
        names = list(zip(problem.key.tolist(), problem.lane.tolist(), strict=True))
        gradients = seen.gradient.flatten(1)
        figures = zip(names, seen.loss.tolist(), lengths.tolist(), gradients, strict=True)
        for name, loss, reach, gradient in figures:
            path = self._paths.setdefault(name, Path())
            path.loss.append(loss)
            path.reach.append(reach)
            if name in self._last:
                cosine = torch.cosine_similarity(gradient, self._last[name], dim=0)
                path.turn.append(float(cosine))
            self._last[name] = gradient.clone()

    @property
    def paths(self) -> Iterable[Path]:
        """The ways of more than a few steps."""
        return [path for path in self._paths.values() if len(path.loss) >= 10]


def traced(attack: Attack) -> tuple[Attack, Trace]:
    """The same attack by the same name, and the trace that it leaves when it runs."""
    trace, kind = Trace(), type(attack)

    def step(self: Attack, problem: Problem, state: Any, seen: Seen) -> Any:
        trace.note(problem, seen)
        return kind.step(self, problem, state, seen)

    return type(kind.__name__, (kind,), {"step": step})(**vars(attack)), trace


def _length(change: Tensor, norm: str) -> Tensor:
    flat = change.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    return flat.abs().sum(1) if norm == "l1" else flat.norm(dim=1)
