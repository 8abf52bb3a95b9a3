"""What an attack finds on its way: how far, and after how many calls."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attacks import Attack, Problem, Query, Seen, length

Array = NDArray[Any]
_NAMES = ("distance", "forwards", "backwards", "who", "when", "how_far")
_EMPTY = np.zeros(0, np.int64)


@dataclass(kw_only=True)
class Trail:
    """What an attack found for n samples, in the order in which it did.

    distance (n,): infinite without a success; forwards, backwards (n,); steps: samples, the calls
    each had spent by then, and the distance found.
    """

    distance: Array
    forwards: Array
    backwards: Array
    steps: list[tuple[Array, Array, Array]] = field(default_factory=list)

    @classmethod
    def nothing(cls, n: int) -> Trail:
        """Before the first call."""
        zero = np.zeros(n, np.int64)
        return cls(distance=np.full(n, np.inf), forwards=zero, backwards=zero.copy())

    def add(self, rows: Array, calls: Array, distance: Array) -> None:
        """Successes of some samples after so many calls."""
        if len(rows):
            self.steps.append((rows, calls, distance))
            np.minimum.at(self.distance, rows, distance)

    def at(self, calls: float) -> Array:
        """The smallest distances (n,) found with up to so many calls."""
        distance = np.full_like(self.distance, np.inf)
        for rows, spent, found in self.steps:
            within = spent <= calls
            np.minimum.at(distance, rows[within], found[within])
        return distance

    def content(self) -> dict[str, Any]:
        """As tensors, for a checkpoint."""
        parts = zip(*self.steps, strict=True) if self.steps else ([], [], [])
        rows, calls, distance = (np.concatenate(part) if part else _EMPTY for part in parts)
        arrays = (self.distance, self.forwards, self.backwards, rows, calls, distance)
        return dict(zip(_NAMES, map(torch.from_numpy, arrays), strict=True))

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> Trail:
        """From such tensors."""
        distance, forwards, backwards, *steps = (content[name].numpy() for name in _NAMES)
        steps = [(steps[0], steps[1], steps[2])]
        return cls(distance=distance, forwards=forwards, backwards=backwards, steps=steps)


class Diary:
    """What a minimum-norm attack saw on its way: the engine keeps the nearest success alone."""

    def __init__(self, keys: Tensor, norm: str) -> None:
        self.norm = norm
        self.sorted, self.order = np.unique(keys.cpu().numpy(), return_index=True)
        self.calls = np.zeros(len(keys), np.int64)
        self.pages: list[tuple[Array, Array, Array]] = []
        self.asked: Query | None = None

    def kept_of(self, attack: Attack) -> Attack:
        """The same attack, whose questions and answers pass by here."""
        kept = copy.copy(attack)

        def query(problem: Problem, state: Any) -> Query:
            self.asked = attack.query(problem, state)
            return self.asked

        def step(problem: Problem, state: Any, seen: Seen) -> Any:
            self.note(problem, seen)
            return attack.step(problem, state, seen)

        vars(kept).update(query=query, step=step)
        return kept

    def note(self, problem: Problem, seen: Seen) -> None:
        """Count a question, and write its successes down."""
        assert self.asked is not None
        live = self.asked.live
        place = self.order[np.searchsorted(self.sorted, problem.key.cpu().numpy())]
        each = (live if live.ndim == 1 else live.sum(1)).long().cpu().numpy()
        self.calls[place] += each * (1 if self.asked.objective is None else 2)
        hit = seen.hit & live
        if not bool(hit.any()):
            return
        row, *column = hit.nonzero(as_tuple=True)
        points = seen.points[(row, *column)]
        inside = (points >= problem.lower[row]) & (points <= problem.upper[row])
        good = inside.flatten(1).all(1)
        row, points = row[good], points[good]
        distance = length(points - problem.x[row], self.norm).double().cpu().numpy()
        samples = place[row.cpu().numpy()]
        self.pages.append((samples, self.calls[samples], distance))

    def finds(self, spent: Array, found: Array) -> list[tuple[Array, Array, Array]]:
        """Samples, calls and distances of the successes, in line with what the engine says in all.

        spent (n,): calls of each sample, which exceed those seen here where an attack asks before
        it begins, and fall short where the budget cut its last question. found (n,): the nearest
        distances.
        """
        before = np.maximum(spent - self.calls, 0)
        return [
            (
                samples,
                np.minimum(calls + before[samples], spent[samples]),
                np.maximum(distance, found[samples]),
            )
            for samples, calls, distance in self.pages
        ]
