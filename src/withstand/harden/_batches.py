"""Training data in batches, from a data set or from any loader, and what is held out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import DataError
from ..data import Dataset, from_arrays

Batch = tuple[Tensor, Tensor]


def derived(*parts: object) -> int:
    """A seed for one purpose, made of a seed and what tells the purpose."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def samples(data: Dataset) -> Batch:
    """Inputs (N, ...) and classes (N,) of a data set; raises DataError for other labels."""
    if data.y.ndim != 1 or data.y.dtype.kind not in "iu":
        raise DataError(
            f"y holds {data.y.dtype} of shape {data.y.shape}; training wants one class for each row"
        )
    return torch.from_numpy(data.x), torch.from_numpy(data.y)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The batches of each epoch: `count` of them with `size` samples in all.

    Those of a data set are shuffled by the seed and are of nearly equal size; a loader is taken as
    it comes.
    """

    source: Dataset | Iterable[Any]
    batch_size: int
    seed: int

    @property
    def count(self) -> int:
        """Batches in an epoch; raises DataError for a loader without a length."""
        if isinstance(self.source, Dataset):
            return -(-len(self.source) // self.batch_size)
        try:
            count = len(self.source)  # type: ignore[arg-type]
        except TypeError:
            raise DataError(
                "the loader has no length; give one of a known number of batches"
            ) from None
        if not count:
            raise DataError("the loader has 0 batches; give at least 1")
        return count

    @property
    def digest(self) -> str:
        """What the data are known by; a loader by its length alone."""
        if isinstance(self.source, Dataset):
            return self.source.provenance.digest
        return f"{type(self.source).__name__} of {self.count} batches"

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the first on; seeds torch for what a loader draws."""
        seed = derived(self.seed, "epoch", number)
        if isinstance(self.source, Dataset):
            x, y = samples(self.source)
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            return ((x[rows], y[rows]) for rows in order.tensor_split(self.count)[first:])
        return map(_pair, islice(_seeded(self.source, seed), first, None))

    def some(self, n: int) -> Batch:
        """About n samples, the same ones each time, and for a data set a random choice."""
        if isinstance(self.source, Dataset):
            x, y = samples(self.source)
            seed = derived(self.seed, "some")
            rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]
            return x[rows], y[rows]
        found: list[Batch] = []
        with torch.random.fork_rng(devices=[]):
            for batch in self.epoch(-1):
                found.append(batch)
                if sum(len(x) for x, _ in found) >= n:
                    break
        return torch.cat([x for x, _ in found])[:n], torch.cat([y for _, y in found])[:n]


def _seeded(source: Iterable[Any], seed: int) -> Iterator[Any]:
    """A loader's batches, each drawn from a seed of its own, whoever draws in between."""
    torch.manual_seed(seed)
    batches = iter(source)
    for place in count():
        # Its order is drawn with its first batch, which may be one that is passed over.
        torch.manual_seed(derived(seed, place))
        try:
            yield next(batches)
        except StopIteration:
            return


def held(
    data: Dataset | Iterable[Any], held_out: float | Dataset | Iterable[Any], seed: int
) -> tuple[Dataset | Iterable[Any], Dataset]:
    """The data without what is held out, and what is held out.

    A share is taken at random from a data set, whole groups where it has any; raises DataError
    where that leaves nothing, and for a share of a loader, which cannot be split.
    """
    if isinstance(held_out, Dataset):
        return data, held_out
    if not isinstance(held_out, float | int):
        pairs = [_pair(batch) for batch in held_out]
        x, y = (torch.cat([pair[i] for pair in pairs]).cpu().numpy() for i in (0, 1))
        return data, from_arrays(x, y, name="held out")
    if not isinstance(data, Dataset):
        raise DataError(
            f"held_out is {held_out}, but a loader cannot be split; give held_out a data set or a "
            "loader of samples that are not trained on"
        )
    rng = np.random.default_rng(derived(seed, "held out"))
    least = round(held_out * len(data))
    if data.groups is None:
        order = rng.permutation(len(data))
    else:
        # Rows of one user are alike: of those trained on none may tell who does best.
        users, owner = np.unique(data.groups, return_inverse=True)
        turn = rng.permutation(len(users))[owner]
        order = np.argsort(turn, kind="stable")
        least = int((turn <= turn[order[least - 1]]).sum()) if least else 0
    if not 0 < least < len(data):
        raise DataError(
            f"held_out is {held_out} of {len(data)} samples; give a share that leaves some to "
            "train on and some to choose by, such as 0.05, or a data set"
        )
    return data.take(order[least:]), data.take(order[:least])


def judged(kept: Dataset, held_out: float | Dataset | Iterable[Any], most: int, seed: int) -> Batch:
    """At most so many of the samples held out; by chance where they come in the user's order."""
    x, y = samples(kept)
    if len(x) > most and not isinstance(held_out, float | int):
        noise = torch.Generator().manual_seed(derived(seed, "judged"))
        rows = torch.randperm(len(x), generator=noise)[:most]
        return x[rows], y[rows]
    return x[:most], y[:most]


def _pair(batch: Any) -> Batch:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise DataError("the loader's batches are not pairs; give inputs (B, ...) and classes (B,)")
    x, y = (torch.as_tensor(part) for part in batch)
    if y.ndim == 0:
        raise DataError(
            f"one sample of shape {tuple(x.shape)} comes where a batch is due; give a DataLoader "
            "around the data set"
        )
    if y.ndim != 1 or y.is_floating_point() or len(x) != len(y) or not x.is_floating_point():
        raise DataError(
            f"a batch holds {x.dtype} of shape {tuple(x.shape)} and {y.dtype} of shape "
            f"{tuple(y.shape)}; give inputs as floats (B, ...) and classes (B,)"
        )
    return x, y.long()
