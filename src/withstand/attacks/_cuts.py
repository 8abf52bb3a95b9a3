"""Where trees part the values of features: the only places at which their answers change."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Cuts:
    """The cuts of each feature, single precision; it shows itself as a count and a digest.

    A value that is at most a cut is on the other side of it than the next one above.
    """

    def __init__(self, cuts: Sequence[NDArray[Any]]) -> None:
        most = max((len(one) for one in cuts), default=0)
        table = np.full((len(cuts), max(most, 1)), np.inf, np.float32)
        for feature, one in enumerate(cuts):
            table[feature, : len(one)] = np.sort(np.asarray(one, np.float32))
        self.table = torch.from_numpy(table)
        self.count = sum(len(one) for one in cuts)
        self.digest = blake2b(table.tobytes(), digest_size=8).hexdigest()

    def __repr__(self) -> str:
        return f"Cuts({self.count} of {len(self.table)} features, {self.digest})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cuts) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def beside(
        self, lower: Tensor, upper: Tensor, row: Tensor, feature: Tensor, place: Tensor
    ) -> Tensor:
        """Values (n,) at or just above a cut between lower and upper (B, F), NaN without one.

        row, feature (n,): whose; place (n,): which of the cuts, from 0 for the first to 1.
        """
        table = self.table.to(place.device)
        first, count = (one[row, feature] for one in self._within(lower, upper))
        number = (place * 2 * count).long()
        at = first + (number // 2).clamp_max((count - 1).clamp_min(0))
        cut = table[feature, at.clamp_max(table.shape[1] - 1)]
        above = torch.nextafter(cut, torch.full_like(cut, torch.inf))
        return torch.where(count > 0, torch.where(number % 2 == 0, cut, above), torch.nan)

    def between(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Which features (B, F) have a cut between lower and upper (B, F)."""
        return self._within(lower, upper)[1] > 0

    def _within(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The place of the first cut of each feature (B, F) in its range, and how many there are.

        One at the upper end parts nothing of the range.
        """
        table = self.table.to(lower.device)
        first, after = (torch.searchsorted(table, end.T.contiguous()).T for end in (lower, upper))
        return first, after - first
