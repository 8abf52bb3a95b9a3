"""What an attack found, and the curve that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..stats import Interval, wilson


class Status(StrEnum):
    """How the attack on one sample ended."""

    FOOLED = "fooled"
    WITHSTOOD = "withstood"
    ALREADY_WRONG = "already wrong"
    BUDGET = "budget spent"
    NO_START = "no starting point"

    @classmethod
    def of(cls, wrong: bool, found: bool, unstarted: bool, ended: bool) -> Status:
        """What the flags of a sample amount to."""
        if wrong:
            return cls.ALREADY_WRONG
        if found:
            return cls.FOOLED
        if unstarted:
            return cls.NO_START
        return cls.WITHSTOOD if ended else cls.BUDGET


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What was spent on each sample (N,), live points only; first_success is -1 without one."""

    forwards: Tensor
    backwards: Tensor
    first_success: Tensor


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The security curve of distances (N,): 0 for already wrong, infinite for never fooled."""

    distance: NDArray[np.float64]

    @property
    def median_distance(self) -> float:
        """The change that fools half of the samples; infinite if fewer than half were fooled."""
        return float(np.median(self.distance))

    def robust_accuracy(self, at: float) -> Interval:
        """Share of samples that no change of length up to `at` was found to fool: upper bound."""
        robust = int((self.distance > at).sum())
        return wilson(robust, len(self.distance))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an attack found for each sample.

    x_adv (N, ...) is the example where success (N,) holds, and x elsewhere; distance (N,) is in the
    threat's norm, 0 for a sample that is wrong to begin with, infinite where there is no success.
    batch_invariant: the model's kernels answer a row alike in any batch, so that the same seed
    gives the same examples whatever the batch size and order.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    status: tuple[Status, ...]
    ledger: Ledger
    batch_invariant: bool

    def curve(self) -> Curve:
        """Robust accuracy at every radius; for a minimum-norm attack on an unbounded threat."""
        return Curve(distance=self.distance.cpu().numpy().astype(np.float64))
