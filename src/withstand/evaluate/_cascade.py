"""Which attacks a threat calls for, cheap before dear, and what each preset spends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._errors import ThreatError
from ..attacks import APGD, APGDT, CGBA, FAB, Attack, RandomNoise, RayS, SigmaZero, Square
from ..threat import ACCESS, Access, Targeted, Threat, Untargeted

Preset = Literal["smoke", "standard", "thorough"]


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What a preset spends on one sample that withstands.

    near: how many of them, the nearest to a mistake, are attacked `again` times with each loss and
    once with `probe` queries; where the sweep misses many, a quarter of them gets `insist` queries.
    """

    noise: int
    steps: int
    restarts: int
    targets: int
    target_steps: int
    sweep: int
    near: int
    again: int
    probe: int
    queries: int
    insist: int
    decisions: int


PRESETS: dict[str, Spend] = {
    "smoke": Spend(
        noise=5, steps=20, restarts=1, targets=1, target_steps=20, sweep=30, near=16, again=1,
        probe=100, queries=500, insist=1000, decisions=500,
    ),
    "standard": Spend(
        noise=20, steps=100, restarts=1, targets=3, target_steps=50, sweep=40, near=32, again=2,
        probe=500, queries=2000, insist=5000, decisions=5000,
    ),
    "thorough": Spend(
        noise=100, steps=100, restarts=5, targets=9, target_steps=100, sweep=300, near=256, again=5,
        probe=1000, queries=10000, insist=20000, decisions=10000,
    ),
}  # fmt: skip


def sweep(spend: Spend, threat: Threat, access: Access) -> Attack | None:
    """The minimum-norm attack behind the security curve, where gradients allow one.

    FAB is never far from the nearest mistake, even where robust training has bent the boundary:
    there FMN ended at 1.7 times its distance in trials.
    """
    if access != "gradients":
        return None
    if threat.norm == "l0":
        return SigmaZero(steps=2 * spend.sweep)
    return FAB(steps=2 * spend.sweep if threat.norm == "l1" else spend.sweep)


def cascade(spend: Spend, threat: Threat, access: Access, classes: int) -> list[Attack]:
    """The attacks in order; raises ThreatError where there is none for this access.

    Losses that differ come before more of the same one, and ranked targets last: in trials the
    change from cross-entropy to a margin found most of what a single loss had missed.
    """
    if access == "none":
        raise ThreatError(
            "access is none: transfer attacks are not available yet; set access to labels, scores "
            "or gradients"
        )
    attacks: list[Attack] = [RandomNoise(draws=spend.noise)]
    if access == "gradients":
        attacks += _gradients(spend, threat, classes)
    elif access == "scores" and threat.norm in Square.norms:
        attacks.append(Square(queries=spend.queries))
    if access == "labels" and threat.norm == "l2":
        attacks.append(CGBA(queries=spend.decisions))
    if access == "labels" and threat.norm == "linf":
        attacks.append(RayS(queries=spend.decisions))
    return attacks


def _gradients(spend: Spend, threat: Threat, classes: int) -> list[Attack]:
    if threat.norm not in APGD.norms:
        return [SigmaZero(steps=6 * spend.sweep)]
    steps, restarts = spend.steps, spend.restarts
    if not isinstance(threat.goal, Untargeted | Targeted):
        return [APGD(steps=steps, loss="margin", restarts=restarts + 1)]
    return [
        APGD(steps=steps, loss="ce"),
        APGD(steps=steps, loss="pma", restarts=restarts),
        *_towards(spend, threat, classes),
    ]


def again(spend: Spend, threat: Threat, access: Access) -> list[Attack]:
    """Fresh starts for those that the sweep saw near a mistake, where more of the same pays."""
    if access != "gradients" or threat.norm not in APGD.norms:
        return []
    if not isinstance(threat.goal, Untargeted | Targeted):
        return [APGD(steps=spend.steps, loss="margin", restarts=spend.again)]
    return [
        APGD(steps=spend.steps, loss="ce", restarts=spend.again),
        APGD(steps=spend.steps, loss="dlr", restarts=spend.again),
    ]


def _towards(spend: Spend, threat: Threat, classes: int) -> list[Attack]:
    if not isinstance(threat.goal, Untargeted) or classes < 3:
        return []
    return [APGDT(steps=spend.target_steps, targets=min(spend.targets, classes - 1))]


def weakest(*access: Access) -> Access:
    """The least of several access levels."""
    return max(access, key=ACCESS.index)
