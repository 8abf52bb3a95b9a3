"""What the traffic of both arms shows: each request is one outcome, counted by arm and in pairs."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from typing import Any

from ._labels import OTHER, Labels
from ._tally import CANARY, CONTROL, SECONDS, STABLE, WAITING, Arm, Tally

_FIRST = 100

# An outcome is one number, so that a request costs one pair and not one of each indicator.
_NOT_ASKED, _FAILED, _ANSWERED, _IN_TIME, _SLOW = range(5)
_UNKNOWN, _EARLY, _SURE, _UNSURE = range(4)
_FLAG = {None: 0, False: 5, True: 10}
_LABEL, _CONFIDENCE = 15, 15 * (OTHER + 1)
_OUTCOMES = 4 * _CONFIDENCE
_EVENTS = ("errors", "slow", "flagged", "unsure")


def _meant(outcome: int) -> tuple[tuple[bool | None, ...], int, bool]:
    """What happened, in the order of _EVENTS, None where it is not known; the label's place, 0 for
    none; and whether there was a confidence.
    """
    confidence, rest = divmod(outcome, _CONFIDENCE)
    label, rest = divmod(rest, _LABEL)
    flag, kind = divmod(rest, 5)
    return (
        (
            None if kind == _NOT_ASKED else kind == _FAILED,
            kind == _SLOW if kind in (_IN_TIME, _SLOW) else None,
            flag == 2 if flag else None,
            confidence == _UNSURE if confidence in (_SURE, _UNSURE) else None,
        ),
        label,
        confidence != _UNKNOWN,
    )


_MEANT = tuple(_meant(outcome) for outcome in range(_OUTCOMES))


class Traffic:
    """Requests of clients: by arm since the rollout began, and in pairs since its step began.

    An outcome waits for the other arm's next one; where too many wait the oldest go first, so that
    what is compared was at about the same time. None of it depends on what happened. An indicator
    counts the pairs in which both outcomes are known.
    """

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        told = told or {}
        arms, tallies = told.get("arms", {}), told.get("tallies", {})
        self.arms = {name: Arm(arms.get(name)) for name in (CANARY, CONTROL, STABLE)}
        self.tallies = {name: Tally(tallies.get(name)) for name in _EVENTS}
        self.labels = Labels(told.get("labels"))
        self.slow: float | None = told.get("slow")
        self.unsure: float | None = told.get("unsure")
        self._seconds: list[float] = []
        self._confidences: list[float] = []
        self._outcomes = {name: defaultdict[int, int](int) for name in self.arms}
        self._pairs = defaultdict[int, int](int)
        self._waiting: deque[int] = deque(maxlen=WAITING)
        self._waits = ""

    def saw(
        self, arm: str, status: int, seconds: float, flagged: bool | None, slow: float | None,
        label: Any = None, confidence: float | None = None,
    ) -> None:  # fmt: skip
        """A request, as `Rollout.saw`; slow: seconds beyond which an answer is, None to find out.

        label, confidence: of the first row of the answer, None where it has none.
        """
        outcome = _FLAG[flagged]
        if status == -1:
            pass
        elif not 0 < status < 400:
            outcome += _FAILED
        elif arm == STABLE:
            outcome += _ANSWERED
        else:
            seen = self.arms[arm]
            seen.seconds += seconds
            seen.buckets[bisect_left(SECONDS, seconds)] += 1
            limit = slow or self.slow
            if limit is None:
                outcome += _ANSWERED
                if arm == CONTROL:
                    self.slow = _limit(self._seconds, seconds, 0.9)
            else:
                outcome += _SLOW if seconds > limit else _IN_TIME
            if label is not None:
                outcome += _LABEL * self.labels.place(label)
            if confidence is not None:
                seen.confidence += confidence
                if self.unsure is None:
                    outcome += _CONFIDENCE * _EARLY
                    if arm == CONTROL:
                        self.unsure = _limit(self._confidences, confidence, 0.1)
                else:
                    outcome += _CONFIDENCE * (_UNSURE if confidence < self.unsure else _SURE)
        self._outcomes[arm][outcome] += 1
        if arm == STABLE:
            return
        waiting = self._waiting
        if not waiting or self._waits == arm:
            self._waits = arm
            waiting.append(outcome)
            return
        other = waiting.popleft()
        self._pairs[
            outcome * _OUTCOMES + other if arm == CANARY else other * _OUTCOMES + outcome
        ] += 1

    def settle(self) -> None:
        """Bring the arms, the tallies and the labels up to what was seen."""
        for arm, outcomes in self._outcomes.items():
            seen = self.arms[arm]
            for outcome, n in outcomes.items():
                (failed, _, flagged, unsure), label, confident = _MEANT[outcome]
                seen.requests += n
                seen.errors += n * bool(failed)
                seen.flagged += n * bool(flagged)
                seen.confident += n * confident
                seen.sure += n * (unsure is False)
                seen.unsure += n * bool(unsure)
                if label:
                    name = self.labels.name(label)
                    seen.labels[name] = seen.labels.get(name, 0) + n
            outcomes.clear()
        for pair, n in self._pairs.items():
            canary, control = (_MEANT[one] for one in divmod(pair, _OUTCOMES))
            for tally, first, second in zip(
                self.tallies.values(), canary[0], control[0], strict=True
            ):
                if first is not None and second is not None:
                    tally.counts[2 * (not first) + (not second)] += n
            if canary[1] and control[1]:
                self.labels.add(canary[1], control[1], n)
        self._pairs.clear()

    def anew(self) -> None:
        """Begin a step: what was seen of the arms stays, and pairs are counted anew."""
        self.settle()
        self._waiting.clear()
        self.tallies = {name: Tally() for name in self.tallies}
        self.labels.clear()

    def kept(self) -> dict[str, Any]:
        """All of it as plain values, as it is made from."""
        self.settle()
        return {
            "arms": {name: arm.kept() for name, arm in self.arms.items()},
            "tallies": {name: one.counts for name, one in self.tallies.items()},
            "labels": self.labels.kept(),
            "slow": self.slow,
            "unsure": self.unsure,
        }


def _limit(first: list[float], value: float, share: float) -> float | None:
    """What a share of the control arm's first values are below; None until there are enough.

    It is known before what it is applied to, so that it cannot favour an arm.
    """
    first.append(value)
    if len(first) < _FIRST:
        return None
    return sorted(first)[int(share * _FIRST)]
