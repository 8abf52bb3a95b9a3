"""Training that goes on being shown what fooled a model once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import DataError
from ..evidence import Corpus, Entry
from ..threat import Box, Region
from ._contract import Lost, Moment, Recipe

_READ = 256


@dataclass(frozen=True, kw_only=True, repr=False)
class Examples:
    """Kept examples x (M, ...) with their true classes y (M,), and the digests (M,) of what they
    were made from."""

    x: Tensor
    y: Tensor
    originals: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        values = self.x.numpy().tobytes() + self.y.numpy().tobytes()
        return f"Examples({len(self)}, {hashlib.sha256(values).hexdigest()[:16]})"

    def take(self, rows: list[int]) -> Examples:
        """Some of them."""
        chosen = tuple(self.originals[row] for row in rows)
        return Examples(x=self.x[rows], y=self.y[rows], originals=chosen)


def examples(corpus: Corpus, shape: tuple[int, ...], domain: Box, version: int | None) -> Examples:
    """The adversarial examples of a corpus that are inputs of this shape and in the domain.

    Up to a version, the newest if not given. Of a client's input with several classes, the one that
    was said last counts. Raises DataError where there are none.
    """
    if not corpus.path.is_dir():
        raise DataError(f"corpus {corpus.path} is not there; give the folder of one")
    x: list[np.ndarray] = []
    y: list[int] = []
    originals: list[str] = []
    places: dict[str, int] = {}
    for among in _chunks(corpus.entries(version, kind="adversarial")):
        for entry, values in zip(among, corpus.read(among), strict=True):
            known = isinstance(entry.label, int) and not isinstance(entry.label, bool)
            if not known or values.shape != shape:
                continue
            place = places.get(entry.digest)
            if entry.lineage is not None and place is not None:
                y[place] = entry.label
                continue
            row = values.astype(np.float32)[None]
            if domain.contains(row, row).all():
                if entry.lineage is not None:
                    places[entry.digest] = len(x)
                x.append(row)
                y.append(entry.label)
                originals.append(entry.original or entry.digest)
    if not x:
        raise DataError(
            f"corpus {corpus.path} holds no adversarial example of shape {shape} with a class; "
            "give the corpus of evaluations of this model's kind of input"
        )
    return Examples(
        x=torch.from_numpy(np.concatenate(x)), y=torch.tensor(y), originals=tuple(originals)
    )


def _chunks(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == _READ:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A recipe on fresh samples, and cross-entropy on kept examples as they are.

    share: of the loss, and of kept examples to fresh samples in a batch. Costs `share` gradient
    passes more than the recipe.
    """

    recipe: Recipe
    kept: Examples
    share: float = 0.25

    @property
    def regions(self) -> tuple[Region, ...]:
        """What the recipe hardens against."""
        return self.recipe.regions

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """The weighted sum of both."""
        fresh = self.recipe.loss(net, x, y, at)
        count = max(1, round(self.share * len(x)))
        rows = torch.randint(len(self.kept), (count,), generator=at.noise, device=x.device).cpu()
        again = cross_entropy(net(self.kept.x[rows].to(x.device)), self.kept.y[rows].to(y.device))
        return Lost((1 - self.share) * fresh.loss + self.share * again, fresh.scores)
