"""The votes of a model under noise: many inputs in one batch, each for as long as it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attacks import Checkpoint, batch_floor
from ..models import Model
from ._noise import draw_keys, gaussian
from ._smoothing import Rule, Smoothing, hopeless

Array = NDArray[Any]
_STATE = ("first", "counts", "answer", "drawn", "done")


@dataclass(kw_only=True, eq=False)
class Poll:
    """Inputs x (N, ...) with keys (N,), and their votes so far.

    labels: (N,); an input with another answer gets no more draws. first: the votes (N, K) that
    choose the answer (N,); counts: (N, K), those that judge it, from other draws; drawn: how many
    of these; done: nothing more is asked.
    """

    model: Model
    x: Tensor
    keys: Tensor
    labels: Array
    rule: Rule
    checkpoint: Checkpoint | None = None
    progress: Callable[[int, int], None] | None = None
    first: Array = field(init=False)
    counts: Array = field(init=False)
    answer: Array = field(init=False)
    drawn: Array = field(init=False)
    done: Array = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.first, self.counts = np.zeros((n, 1), int), np.zeros((n, 1), int)
        self.answer, self.drawn = np.full(n, -1), np.full(n, -self.settings.select)
        self.done, self._look = np.zeros(n, bool), np.zeros(n, int)
        self.batch = self.settings.batch
        # Where kernels answer alike from a few rows on, a smaller batch need not be filled up.
        self.floor = batch_floor(self.model, self.x, self.batch) or self.batch

    @property
    def settings(self) -> Smoothing:
        """What is asked."""
        return self.rule.settings

    def run(self) -> None:
        """Draw until all is settled; goes on from the checkpoint."""
        self._restore()
        waiting = np.flatnonzero(~self.done)
        asked, waiting = waiting[: self.batch], waiting[self.batch :]
        while len(asked):
            self._draw(asked)
            open_ = asked[~self.done[asked]]
            entering = self.batch - len(open_)
            asked, waiting = np.append(open_, waiting[:entering]), waiting[entering:]
            self._save()
            if self.progress is not None:
                self.progress(int(self.done.sum()), len(self.x))

    def _draw(self, asked: Array) -> None:
        """One batch: for each input the draws up to its next look, as far as they fit."""
        wanted = self._look[asked] - self.drawn[asked]
        ends = np.minimum(np.cumsum(wanted), self.batch)
        take = np.diff(ends, prepend=0)
        rows = np.repeat(asked, take)
        numbers = np.arange(len(rows)) - np.repeat(ends - take, take) + self.drawn[rows]
        given = self._answers(rows, numbers)
        self._count(rows[numbers < 0], given[numbers < 0], "first")
        self._count(rows[numbers >= 0], given[numbers >= 0], "counts")
        self.drawn[asked] += take
        ready = asked[self.drawn[asked] == self._look[asked]]
        chosen = self.answer[ready] < 0
        self._choose(ready[chosen])
        self._judge(ready[~chosen])

    def _answers(self, rows: Array, numbers: Array) -> Array:
        """The model's answers (B,) to inputs with the noise of numbered draws."""
        missing = self.floor - len(rows)
        if missing > 0:
            rows, numbers = (np.append(a, np.repeat(a[:1], missing)) for a in (rows, numbers))
        place = torch.from_numpy(rows).to(self.x.device)
        # The draws that choose come first: numbers count from 0 however many they are.
        draws = torch.from_numpy(numbers + self.settings.select).to(self.x.device)
        keys = draw_keys(self.keys[place], draws, self.settings.seed)
        noisy = gaussian(keys, self.x[0].numel()).mul_(self.settings.sigma)
        noisy = noisy.reshape(len(rows), *self.x.shape[1:]).add_(self.x[place])
        given = decide(self.model, noisy).cpu().numpy()
        return given[: len(given) - max(missing, 0)]

    def _count(self, rows: Array, given: Array, name: str) -> None:
        """Add votes; an answer that is no number votes for nobody."""
        rows, given = rows[given >= 0], given[given >= 0]
        classes = max(self.counts.shape[1], int(given.max(initial=0)) + 1)
        if classes > self.counts.shape[1]:
            more = ((0, 0), (0, classes - self.counts.shape[1]))
            self.first, self.counts = np.pad(self.first, more), np.pad(self.counts, more)
        places, index = np.unique(rows, return_inverse=True)
        votes = np.bincount(index * classes + given, minlength=len(places) * classes)
        getattr(self, name)[places] += votes.reshape(-1, classes)

    def _choose(self, rows: Array) -> None:
        first = self.first[rows]
        answer = first.argmax(1)
        self.answer[rows] = answer
        self.done[rows] = (self.labels[rows] != answer) | hopeless(
            first.max(1), self.settings.select
        )
        self._look[rows] = self.rule.next_look(self.drawn[rows])

    def _judge(self, rows: Array) -> None:
        votes = self.counts[rows, self.answer[rows]]
        self.done[rows] = self.rule.settled(rows, votes, self.drawn[rows])
        self._look[rows] = self.rule.next_look(self.drawn[rows])

    def _restore(self) -> None:
        if self.checkpoint is None or not self.checkpoint.content:
            return
        content = self.checkpoint.content
        for name in _STATE:
            setattr(self, name, content[name].numpy().copy())
        self._look = content["look"].numpy().copy()

    def _save(self) -> None:
        if self.checkpoint is not None and self.checkpoint.due:
            state = {name: torch.from_numpy(getattr(self, name)) for name in _STATE}
            self.checkpoint.save({**state, "look": torch.from_numpy(self._look)})


def decide(model: Model, x: Tensor) -> Tensor:
    """The model's answers (B,) to x (B, ...), -1 where its scores are not finite."""
    if model.access == "labels":
        return model.labels(x)
    scores = model.scores(x)
    answers = scores.argmax(1)
    # One sum tells mostly.
    return answers if isfinite(scores.sum().item()) else answers.where(scores.isfinite().all(1), -1)
