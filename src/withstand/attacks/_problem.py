"""What an attack is told: one row for each sample under attack, aligned with its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..threat import Goal
from ..threat.tabular import Capability


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Rows under attack; all tensors share their first axis B, so that rows can leave and enter.

    lower and upper are the box that is reachable in every feature (domain, Linf ball and mask,
    rounded inward); eps is the radius of the ball of `norm`, no limit within the box where
    the question is how small a change suffices; key names the sample, lane the restart or rank of
    the target, target the class of that rank, -1 without one. capability: what must hold of rows of
    a table besides.
    """

    x: Tensor
    y: Tensor
    key: Tensor
    lane: Tensor
    target: Tensor
    eps: Tensor
    lower: Tensor
    upper: Tensor
    norm: str
    goal: Goal
    seed: int
    capability: Capability | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor | slice) -> Problem:
        """The problem of these rows only; of a slice, without a copy."""
        return self._each(lambda name: getattr(self, name)[rows])

    def with_rows(self, other: Problem) -> Problem:
        """The rows of both."""
        return self._each(lambda name: torch.cat((getattr(self, name), getattr(other, name))))

    def _each(self, change: Callable[[str], Any]) -> Problem:
        tensors = [f.name for f in fields(self) if isinstance(getattr(self, f.name), Tensor)]
        return replace(self, **{name: change(name) for name in tensors})

    def column(self, values: Tensor) -> Tensor:
        """Per-row values (B,) shaped to broadcast against x (B, ...)."""
        return values.reshape(-1, *(1,) * (self.x.ndim - 1))


def sample_keys(x: Tensor, y: Tensor) -> Tensor:
    """A key for each sample (N,): the digest of its content, and of its count among its equals."""
    seen: dict[bytes, int] = {}
    keys = []
    for row, label in zip(*(np.ascontiguousarray(t.cpu().numpy()) for t in (x, y)), strict=True):
        digest = blake2b(row, digest_size=8)
        digest.update(label)
        content = digest.digest()
        count = seen.get(content, 0)
        seen[content] = count + 1
        digest.update(count.to_bytes(8, "little"))
        keys.append(int.from_bytes(digest.digest(), "little", signed=True))
    return torch.tensor(keys, dtype=torch.int64)
