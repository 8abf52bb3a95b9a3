"""The live flag rate, looked at as often as one likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..._errors import DataError
from ...stats import Interval, log_wealth, lower_sequence


@dataclass(frozen=True, kw_only=True)
class FlagRate:
    """How many inputs a detector flags in service, against the rate that it promised.

    While the true rate never exceeds `fpr`, the probability that `alarmed_at` is ever set is at
    most `alpha`, however often one looks (Ville's inequality). Half of alpha is spent on all inputs
    since the start, half on windows of `window` inputs, of which the j-th gets 1 / (j (j + 1)):
    without them a long quiet time would hide what changes after it. Constant memory.

    It tells that more is flagged, not why: it may be an attack or another kind of benign inputs.
    """

    fpr: float = 0.01
    alpha: float = 0.05
    window: int = 10_000
    n: int = 0
    flagged: int = 0
    windows: int = 1
    recent_n: int = 0
    recent_flagged: int = 0
    alarmed_at: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("fpr", self.fpr), ("alpha", self.alpha)):
            if not 0 < value < 1:
                raise DataError(f"{name} is {value:g}; give a share between 0 and 1, such as 0.01")
        if self.window < 1:
            raise DataError(f"window is {self.window}; give at least 1 input, such as 10000")

    def update(self, flags: ArrayLike) -> FlagRate:
        """With one more flag, or with several (B,); the first alarm is kept."""
        given = np.asarray(flags, bool).ravel()
        fresh = self.recent_n >= self.window
        now = replace(
            self,
            n=self.n + len(given),
            flagged=self.flagged + int(given.sum()),
            windows=self.windows + fresh,
            recent_n=(0 if fresh else self.recent_n) + len(given),
            recent_flagged=(0 if fresh else self.recent_flagged) + int(given.sum()),
        )
        # An input that is not flagged never adds to the evidence.
        if now.alarmed_at is None and given.any() and now._sure:
            return replace(now, alarmed_at=now.n)
        return now

    @property
    def alarm(self) -> bool:
        """Whether the rate has surely exceeded the promise at some time."""
        return self.alarmed_at is not None

    @property
    def recent(self) -> Interval:
        """The rate in the present window, with its confidence sequence."""
        return _sequence(self.recent_flagged, self.recent_n, self._recent_alpha)

    @property
    def lifetime(self) -> Interval:
        """The rate since the start, with its confidence sequence."""
        return _sequence(self.flagged, self.n, self.alpha / 2)

    @property
    def _recent_alpha(self) -> float:
        return self.alpha / 2 / (self.windows * (self.windows + 1))

    @property
    def _sure(self) -> bool:
        counts = (self.flagged, self.recent_flagged), (self.n, self.recent_n)
        needed = [-log(self.alpha / 2), -log(self._recent_alpha)]
        return bool((log_wealth(*counts, self.fpr) >= needed).any())

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> FlagRate:
        """From what `to_dict` gave."""
        return cls(**told)


def _sequence(flagged: int, n: int, alpha: float) -> Interval:
    """Both ends of a confidence sequence, each wrong with a probability of at most alpha."""
    low = float(lower_sequence(flagged, n, alpha)) if n else 0.0
    high = 1 - float(lower_sequence(n - flagged, n, alpha)) if n else 1.0
    return Interval(value=flagged / n if n else float("nan"), low=low, high=high, n=n)
