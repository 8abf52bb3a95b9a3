"""How an attack works, by the sequence of its inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..stats import clopper_pearson
from ._recorded import Array, Recorded

Family = Literal[
    "random search", "gradient estimation", "boundary walk", "one shot", "sweep", "unknown"
]

_FEWEST = 20
_MOST = 600
_WINDOW = 64
_NUMBERS = 2048
_NEAR = 0.5
_STEADY = 1e-5


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The family of an attack, why, and how sure that is.

    confidence: how often such a verdict was right, at least (95 %), on attacks whose family was
    known; None where that was not measured.
    """

    family: Family
    why: tuple[str, ...] = ()
    confidence: float | None = None

    def __str__(self) -> str:
        sure = "" if self.confidence is None else (
            f" (such a verdict was right at least {self.confidence:.0%} of the time)"
        )  # fmt: skip
        return f"{self.family}{sure}: {'; '.join(self.why)}"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a sequence of inputs looks like, as shares of its queries.

    near: that are close to an earlier one. paired: that have a mirror image about a common centre.
    halved: that go on along a line, at half the step. sparse: that change less than half of the
    numbers of the one they come from, the rest not at all.
    """

    n: int
    near: float
    paired: float
    halved: float
    sparse: float


def attribute(inputs: Sequence[Recorded]) -> Attribution:
    """The family of attack that the recorded inputs of the most active client look like.

    By what is left of it in the inputs alone: mirrored pairs tell an estimate of the gradient
    (NES, SPSA), halved steps along a line a walk on the boundary (HopSkipJump, Boundary, SurFree),
    changes in few numbers a random search (Square, SimBA). Whoever knows of this can hide.
    """
    if not inputs:
        return Attribution(family="unknown", why=("no input is recorded",))
    key, _ = Counter(str(one.record.content.get("key", "")) for one in inputs).most_common(1)[0]
    mine = [one for one in inputs if str(one.record.content.get("key", "")) == key][:_MOST]
    sensors = Counter(sensor for one in mine for sensor in one.sensors)
    if len({one.values.shape for one in mine}) > 1:
        return Attribution(family="unknown", why=("its inputs differ in shape",))
    return judged(traits(np.stack([one.values for one in mine])), sensors)


def judged(told: Traits, sensors: Counter[str]) -> Attribution:
    """The family that a sequence with these traits belongs to; sensors: how often each flagged."""
    n = told.n
    if n < _FEWEST:
        return Attribution(
            family="unknown", why=(f"{n} inputs are too few to tell; {_FEWEST} are needed",)
        )
    if told.near < 0.3:
        far = f"{1 - told.near:.0%} of {n} inputs are close to no earlier one"
        if sensors["extraction"]:
            return Attribution(family="sweep", why=(far, "the sensor extraction has flagged them"))
        if sum(sensors.values()) > n / 2:
            return Attribution(
                family="one shot", why=(far, f"flagged by {', '.join(sorted(sensors))}")
            )
        return Attribution(family="unknown", why=(far, "few of them are flagged"))
    if told.halved > 0.01:
        return _sure("boundary walk", f"{told.halved:.0%} of {n} inputs halve a step along a line")
    if told.sparse > 0.95:
        return _sure("random search", f"{told.sparse:.0%} of {n} inputs change few numbers each")
    if told.paired > 0.3:
        return _sure("gradient estimation", f"{told.paired:.0%} of {n} inputs have a mirror image")
    if told.sparse > 0.5:
        return _sure("random search", f"{told.sparse:.0%} of {n} inputs change few numbers each")
    return Attribution(
        family="unknown",
        why=(f"{told.near:.0%} of {n} inputs are close to an earlier one, with no known pattern",),
    )


def traits(x: Array) -> Traits:
    """The traits of a sequence of inputs (N, ...), oldest first."""
    rows = np.ascontiguousarray(x.reshape(len(x), -1), np.float64)
    n = len(rows)
    size = np.linalg.norm(rows - rows.mean(1, keepdims=True), axis=1) + 1e-12
    near, sparse = 0, 0
    for t in range(1, n):
        window = rows[max(0, t - _WINDOW) : t]
        gap = np.linalg.norm(window - rows[t], axis=1)
        best = int(gap.argmin())
        if gap[best] > _NEAR * size[t]:
            continue
        near += 1
        changed = np.abs(window - rows[t]) > _STEADY
        share = changed.mean(1)
        # The one it was made of is the one that it differs from in the fewest numbers.
        sparse += 0 < share[share > 0].min(initial=1.0) < 0.5
    return Traits(
        n=n,
        near=near / max(n - 1, 1),
        paired=_paired(rows) / n,
        halved=_halved(rows) / max(n - 2, 1),
        sparse=sparse / max(n - 1, 1),
    )


def _paired(rows: NDArray[Any]) -> int:
    """How many inputs have a mirror image about an earlier one, as two more pairs have.

    At a bound one of a pair stays where it is, so that a mirror image moves nothing the same way,
    and both together move nearly all that moves.
    """
    if rows.shape[1] > _NUMBERS:
        chosen = np.random.default_rng(0).choice(rows.shape[1], _NUMBERS, replace=False)
        rows = rows[:, chosen]
    mirrored: set[int] = set()
    for t in range(len(rows) - 6):
        gap = rows[t + 1 : t + 1 + _WINDOW] - rows[t]
        up, down = ((side * gap > _STEADY).astype(np.float32) for side in (1, -1))
        moved = up + down
        movable = int(moved.any(0).sum())
        if movable < 8:
            continue
        count = moved.sum(1)
        union = count[:, None] + count - moved @ moved.T
        alike = up @ up.T + down @ down.T
        pairs = np.argwhere(np.triu((alike <= 0.02 * union) & (union >= 0.8 * movable), 1))
        if len(pairs) >= 3:
            mirrored |= set((pairs + t + 1).ravel().tolist())
    return len(mirrored)


def _halved(rows: NDArray[Any]) -> int:
    """How many steps go on along the line of the one before, there or back, at half its length."""
    steps = np.diff(rows, axis=0)
    length = np.linalg.norm(steps, axis=1)
    found = 0
    for now, last, step, before in zip(length[1:], length[:-1], steps[1:], steps[:-1], strict=True):
        if min(now, last) < _STEADY:
            continue
        along = abs(float(step @ before)) / (now * last)
        found += along > 0.99 and 0.4 < now / last < 0.6
    return found


# How many such verdicts were right, of how many, on sequences of 12 attacks on digits that no
# threshold here was chosen by: whole ones or those from the 61st query on, what is less favourable.
_RIGHT = {"random search": (24, 24), "gradient estimation": (24, 27), "boundary walk": (48, 48)}


def _sure(family: Family, why: str) -> Attribution:
    return Attribution(family=family, why=(why,), confidence=clopper_pearson(*_RIGHT[family]).low)
