"""Catastrophic overfitting: noticed within half an epoch, and what is done about it.

A net trained on single steps may learn to withstand just those, by a loss that is wildly curved
between the sample and the step's end (Wong et al. 2020, section 5). Its accuracy on its own points
rises, and a few smaller steps fool it always.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from ..threat import Region
from ._contract import Moment, Proving, Recipe
from ._several import Alternating, Average, Worst
from ._watch import withstood

_STEPS = 5
_FALL = 0.15
_LEAD = 0.05


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a check saw: shares of watched training samples that are right as they are (clean),
    after one step (single) and all along PGD (multi); own: of the points trained on since."""

    clean: float
    single: float
    multi: float
    own: float
    scale: float


def checks(batches: int) -> int:
    """Checks in an epoch of so many batches: each quarter, or half where they are few."""
    return 4 if batches >= 100 else 2


def watched(samples: int) -> int:
    """How many training samples are looked at: enough to see a fall, and cheap beside an epoch."""
    return min(256, max(64, samples // 50))


def watches(recipe: Recipe) -> bool:
    """Whether the guard can tell overfitting from learning: of points made in one region.

    Of several regions, the one last drawn says nothing about all; bounds are of no points.
    """
    inside: Any = recipe
    while hasattr(within := getattr(inside, "recipe", None), "loss"):
        inside = within
    return len(recipe.regions) == 1 and not isinstance(
        inside, Average | Worst | Alternating | Proving
    )


class Guard:
    """Looks at a few training samples and says what is wrong."""

    def __init__(self, x: Tensor, y: Tensor, regions: tuple[Region, ...]) -> None:
        self.x, self.y, self.regions = x, y, regions
        self.best: Look | None = None

    def look(self, net: nn.Module, own: float, at: Moment) -> Look:
        """The shares now."""
        seen = withstood(net, self.x, self.y, self.regions, at, steps=_STEPS, single=True)
        clean, single, multi = (float(part.float().mean()) for part in seen)
        return Look(clean=clean, single=single, multi=multi, own=own, scale=at.scale)

    def wrong(self, look: Look) -> str | None:
        """Why this is overfitting to single steps; None where all is well."""
        best, shown = self.best, f"{look.multi:.0%} withstand {_STEPS} steps"
        if best is not None and look.scale == best.scale:
            fall, single = best.multi - look.multi, best.single - look.single
            if fall > _FALL and single < fall / 2:
                return f"{shown}, down from {best.multi:.0%}, while {look.single:.0%} withstand one"
        if look.own > look.clean + _LEAD:
            return (
                f"{look.own:.0%} of the points trained on are right, {look.clean:.0%} as they are"
            )
        if look.own > 0.5 and look.multi < look.own / 2:
            return f"{shown}, while {look.own:.0%} withstand the step that is trained on"
        if best is None or look.multi >= best.multi or look.scale != best.scale:
            self.best = look
        return None

    def content(self) -> dict[str, Any] | None:
        """What a checkpoint keeps."""
        return None if self.best is None else asdict(self.best)

    def restore(self, content: dict[str, Any] | None) -> None:
        """Go on from what a checkpoint kept."""
        self.best = None if content is None else Look(**content)
