"""Whether a detector cheats: what it must not notice, and what it cannot know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ...attacks import length
from ...evaluate import Finding
from ...stats import clopper_pearson, paired_difference
from ...threat import Box
from .._detector import Detector
from ._attempt import Tried
from ._report import Array

_ROUNDED, _TINY, _MISTAKES, _ALONE = 0.3, 0.1, 5, 1e-3
_LEVELS = 1025
_FEW = 200


def controls(
    detector: Detector,
    x: Tensor,
    y: Tensor,
    right: Tensor,
    suspicion: Array,
    surest: Tried | None,
    *,
    norm: str,
    radius: float | None,
    known: Sequence[Tensor],
    seed: int,
) -> Iterator[Finding]:
    """The findings on benign inputs x (M, ...) with labels y, of which some are right (M,).

    suspicion: their scores' excess (M,). surest: what an attack found that does not know of the
    detector. radius: of random changes, None where inputs have no such. known: the inputs that it
    was fitted and calibrated on.
    """
    yield from _overlap(detector, x, known)
    yield from _mistakes(right, suspicion)
    yield from _alone(detector, x, suspicion)
    if radius is not None:
        few = torch.linspace(0, len(x) - 1, min(_FEW, len(x))).long()
        moved = _Moved(detector, x[few], torch.from_numpy(suspicion)[few] > 0, norm, seed)
        yield moved.tiny(radius)
        yield moved.random(radius)
    if surest is not None:
        yield from _rounding(detector, x, surest, y)


def _overlap(detector: Detector, x: Tensor, known: Sequence[Tensor]) -> Iterator[Finding]:
    stored = [
        value.reshape(len(value), -1)
        for value in detector.state.values()
        if value.ndim > 1 and len(value) and value[0].numel() == x[0].numel()
    ]
    given = [other.reshape(len(other), -1) for other in known]
    digests = {digest for rows in (*stored, *given) for digest in _digests(rows)}
    if not digests:
        return
    shared = sum(digest in digests for digest in _digests(x.reshape(len(x), -1)))
    yield Finding(
        check="data overlap",
        value=shared / len(x),
        threshold=0.0,
        verdict="red" if shared else "green",
        meaning=f"it knows {shared} of the {len(x)} inputs that it is tested on"
        if shared
        else "none of the inputs that it was fitted or calibrated on is among those tested",
        fix="Test it on inputs that it has never met" if shared else "",
    )


def _digests(rows: Tensor) -> list[bytes]:
    return [
        hashlib.blake2b(row.tobytes(), digest_size=12).digest()
        for row in np.ascontiguousarray(rows.float().cpu().numpy())
    ]


def _mistakes(right: Tensor, suspicion: Array) -> Iterator[Finding]:
    """Nobody but one who has the label tells every natural mistake from every right answer."""
    wrong, fine = suspicion[~right.numpy()], suspicion[right.numpy()]
    if len(wrong) < _MISTAKES or not len(fine):
        return
    told = float((wrong[:, None] > fine).mean())
    leaks = told == 1.0
    yield Finding(
        check="natural mistakes",
        value=told,
        threshold=1.0,
        verdict="red" if leaks else "green",
        meaning=f"it tells all {len(wrong)} natural mistakes of the model from its "
        f"{len(fine)} right answers without an error, for which it would need the labels"
        if leaks
        else "it does not know the labels: natural mistakes are not told apart without error",
        fix="Look for where it gets the labels from" if leaks else "",
    )


def _alone(detector: Detector, x: Tensor, suspicion: Array) -> Iterator[Finding]:
    """A score that hangs on the other rows of its batch knows who is attacked together."""
    rows = x[: min(8, len(x))]
    alone = torch.cat([detector.suspicion(row[None]) for row in rows]).numpy()
    scale = float(np.std(suspicion)) + 1e-12
    apart = float(np.abs(alone - suspicion[: len(alone)]).max()) / scale
    depends = apart > _ALONE
    yield Finding(
        check="batch dependence",
        value=apart,
        threshold=_ALONE,
        verdict="red" if depends else "green",
        meaning=f"alone an input gets another score than in a batch, by {apart:.2g} standard "
        "deviations"
        if depends
        else "an input gets the same score alone and in a batch",
        fix="Score each row by itself, without statistics over the batch" if depends else "",
    )


class _Moved:
    """Benign inputs that are moved, which fools nobody on purpose."""

    def __init__(
        self, detector: Detector, x: Tensor, flagged: Tensor, norm: str, seed: int
    ) -> None:
        self.detector, self.x, self.flagged, self.norm = detector, x, flagged, norm
        signs = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
        self.signs = signs.to(x).sign()

    def _flags(self, radius: float) -> Tensor:
        unit = self.signs.abs() if self.norm == "linf" else self.signs
        size = 1.0 if self.norm == "linf" else float(length(unit[:1], self.norm))
        moved = _within(self.x + radius / size * self.signs, self.detector.model.domain)
        return self.detector.flags(moved).cpu()

    def tiny(self, radius: float) -> Finding:
        """By a hundredth of the radius: less than what storing an input anew changes."""
        flags = self._flags(radius / 100)
        more, less = int((flags & ~self.flagged).sum()), int((self.flagged & ~flags).sum())
        gap = paired_difference(more, less, len(flags), 0.95)
        fires = gap.low > _TINY
        return Finding(
            check="tiny change",
            value=gap.value,
            threshold=_TINY,
            verdict="red" if fires else "green",
            meaning=f"it flags {100 * gap.value:.0f} % more of benign inputs once they are moved "
            "by a hundredth of the radius: it knows these inputs or their number format, and not "
            "attacks"
            if fires
            else "a hundredth of the radius at random sets off no more alarms",
            fix="Leave out what tells stored inputs from others; fit it on inputs that were "
            "moved a little"
            if fires
            else "",
        )

    def random(self, radius: float) -> Finding:
        """By the radius itself, at random: no fault, but where inputs get noisy it means alarms."""
        rate = clopper_pearson(int(self._flags(radius).sum()), len(self.x))
        return Finding(
            check="random change",
            value=rate.value,
            threshold=None,
            verdict="green",
            meaning=f"of benign inputs with random noise of the radius, which fools nobody on "
            f"purpose, it flags {rate}",
            fix="",
        )


def _rounding(detector: Detector, x: Tensor, surest: Tried, y: Tensor) -> Iterator[Finding]:
    """The same examples on the values that benign inputs have, those that still fool."""
    grid = torch.unique(x[:_FEW])
    hits = surest.fooled.nonzero()[:, 0]
    if len(grid) >= _LEVELS or not len(hits):
        return
    rows = surest.attempt.rows[hits]
    origin, found = x[rows], surest.x_adv[hits]
    rounded = _on_grid(origin, found, grid)
    model, goal = detector.model, surest.attempt.threat.goal
    goal = getattr(goal, "goal", goal)
    with model.held():
        still = goal.hit(model.labels(rounded), y[rows]).cpu()
    if not bool(still.any()):
        return
    before = surest.suspicion[hits][still] > 0
    after = detector.flags(rounded[still]).cpu()
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    gap = paired_difference(lost, won, len(before), 0.95)
    fires = gap.low > _ROUNDED
    yield Finding(
        check="rounding",
        value=gap.value,
        threshold=_ROUNDED,
        verdict="red" if fires else "green",
        meaning=f"of {len(before)} examples that still fool once they are rounded to the values "
        f"that benign inputs have, it flags {100 * gap.value:.0f} % less than of the same "
        "unrounded: it notices how attacks store numbers"
        if fires
        else f"rounded to the values of benign inputs, examples are flagged as before "
        f"({len(before)} that still fool)",
        fix="Judge inputs after the decoding and rounding that production does" if fires else "",
    )


def _on_grid(x: Tensor, x_adv: Tensor, grid: Tensor) -> Tensor:
    """The values of the grid nearest to x_adv that are no farther from x (both on it)."""
    above = torch.searchsorted(grid, x_adv.contiguous()).clamp(0, len(grid) - 1)
    below = (above - 1).clamp_min(0)
    high, low = grid[above], grid[below]
    nearest = torch.where((high - x_adv).abs() <= (x_adv - low).abs(), high, low)
    room = (x_adv - x).abs() * (1 + 1e-5) + 1e-7
    toward = torch.where(x_adv >= x, low.maximum(x), high.minimum(x))
    return torch.where((nearest - x).abs() <= room, nearest, toward)


def _within(points: Tensor, domain: Box) -> Tensor:
    low = torch.as_tensor(domain.lower, dtype=points.dtype, device=points.device)
    high = torch.as_tensor(domain.upper, dtype=points.dtype, device=points.device)
    return (
        points.clamp(low, high) if low.ndim == high.ndim == 0 else points.maximum(low).minimum(high)
    )
