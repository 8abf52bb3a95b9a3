"""Means of bounded values, watched without end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Bets as shares of the largest that cannot go bankrupt: for changes large and small.
_STAKES = 2.0 ** -np.arange(1, 10)


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """Several means of values in [0, 1], each watched for leaving [below, above], (C,).

    A bettor against "the mean never exceeds `above`" holds a mixture of nine bets (Waudby-Smith and
    Ramdas 2024, section 4), and one against `below` as well. While a mean stays inside, the
    probability that it ever alarms is at most its alpha, (C,), however often one looks (Ville's
    inequality). The bettors start afresh every `window` inputs, the j-th time at 1 / (j (j + 1)) of
    alpha, so that a long quiet time hides nothing that comes after it. Constant memory.

    rises, falls: logarithms of the wealth (C, 9). counts, sums: of the present window (C,). alarms:
    after how many inputs each alarmed first, 0 for never.
    """

    above: Array
    below: Array
    alpha: Array
    window: int
    rises: Array
    falls: Array
    counts: Array
    sums: Array
    alarms: Array
    n: int = 0
    windows: int = 1
    recent: int = 0

    @classmethod
    def start(cls, *, above: Array, below: Array, alpha: Array, window: int) -> Watch:
        """Before the first input; an end that is not watched is 1 above and 0 below."""
        none, bets = np.zeros(len(above)), np.zeros((len(above), len(_STAKES)))
        return cls(
            above=above,
            below=below,
            alpha=alpha,
            window=window,
            rises=bets,
            falls=bets,
            counts=none,
            sums=none,
            alarms=none,
        )

    def update(self, values: Array) -> Watch:
        """With more values (B, C); NaN where an input says nothing about a mean."""
        if self.recent >= self.window:
            none, bets = np.zeros_like(self.counts), np.zeros_like(self.rises)
            fresh = replace(self, rises=bets, falls=bets, counts=none, sums=none, recent=0)
            return replace(fresh, windows=self.windows + 1).update(values)
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        rises = self.rises + _won(values, self.above)
        falls = self.falls + _won(1 - values, 1 - self.below)
        n = self.n + len(values)
        # Each side has half of alpha.
        needed = -np.log(self.alpha / 2 / (self.windows * (self.windows + 1)))
        wealth = np.logaddexp.reduce(np.stack((rises, falls)), 2) - np.log(len(_STAKES))
        first = (self.alarms == 0) & (wealth >= needed).any(0)
        return replace(
            self,
            rises=rises,
            falls=falls,
            counts=self.counts + known.sum(0),
            sums=self.sums + filled.sum(0),
            alarms=np.where(first, n, self.alarms),
            n=n,
            recent=self.recent + len(values),
        )

    @property
    def means(self) -> Array:
        """The means (C,) of the present window, NaN where nothing is known."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Watch:
        """From what `to_dict` gave."""
        return cls(
            **{  # type: ignore[arg-type]
                name: np.asarray(value, np.float64) if isinstance(value, list) else value
                for name, value in told.items()
            }
        )


def _won(values: Array, null: Array) -> Array:
    """Sums over the inputs (B, C) of the logarithm of what each bet wins, (C, 9)."""
    # Where the null is the end of the range, nothing can ever be won.
    inside = np.clip(null, 1e-9, 1.0)[None, :, None]
    won = np.log1p(_STAKES / inside * (values[:, :, None] - inside))
    return np.asarray(np.where(np.isnan(won), 0.0, won).sum(0))
