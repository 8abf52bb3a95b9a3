"""What is counted of the arms while both answer."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

CANARY: Final = "canary"
CONTROL: Final = "control"
STABLE: Final = "stable"

SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper ends of what latencies are counted in."""

WAITING: Final = 1000
"""Outcomes of one arm that wait for the other's, at most."""


class Tally:
    """Something that happens or not, in pairs of one outcome of each arm, in order of arrival.

    counts: happened in both, in the canary alone, in the control alone, in neither. An outcome
    waits for the other arm's next one; where too many wait the oldest go first, so that what is
    compared was at about the same time. Neither depends on what happened.
    """

    def __init__(self, counts: list[int] | None = None) -> None:
        self.counts = [0, 0, 0, 0] if counts is None else [int(one) for one in counts]
        self._waiting: deque[bool] = deque(maxlen=WAITING)
        self._arm = ""

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return sum(self.counts)

    def saw(self, arm: str, happened: bool) -> None:
        """One outcome of an arm."""
        waiting = self._waiting
        if not waiting or self._arm == arm:
            self._arm = arm
            waiting.append(happened)
            return
        other = waiting.popleft()
        canary, control = (happened, other) if arm == CANARY else (other, happened)
        self.counts[2 * (not canary) + (not control)] += 1

    def add(self, counts: list[int]) -> None:
        """Pairs of one input each, that both arms answered."""
        self.counts = [one + more for one, more in zip(self.counts, counts, strict=True)]


class Arm:
    """What was seen of one arm since the rollout began."""

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        told = told or {}
        self.requests = int(told.get("requests", 0))
        self.errors = int(told.get("errors", 0))
        self.flagged = int(told.get("flagged", 0))
        self.seconds = float(told.get("seconds", 0.0))
        self.buckets = [int(one) for one in told.get("buckets", [0] * (len(SECONDS) + 1))]
        self.labels = {str(name): int(n) for name, n in told.get("labels", {}).items()}
        self.confidence = float(told.get("confidence", 0.0))
        self.confident = int(told.get("confident", 0))
        self.sure, self.unsure = int(told.get("sure", 0)), int(told.get("unsure", 0))
        self.probes: dict[str, list[int]] = {
            name: [int(one) for one in counts] for name, counts in told.get("probes", {}).items()
        }

    def probed(self, sli: str, tried: int, happened: int) -> None:
        """So many probes, and how often it happened."""
        counts = self.probes.setdefault(sli, [0, 0])
        counts[0] += tried
        counts[1] += happened

    def quantile(self, share: float) -> float | None:
        """The upper end of the bucket that a share of the answers did not take longer than."""
        total = sum(self.buckets)
        if not total:
            return None
        seen = 0
        for end, count in zip(SECONDS, self.buckets, strict=False):
            seen += count
            if seen >= share * total:
                return end
        return None

    def kept(self) -> dict[str, Any]:
        """All of it as plain values."""
        return dict(vars(self))
