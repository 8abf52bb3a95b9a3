"""Which attacks a threat calls for, cheap before dear, and what each preset spends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .._errors import ThreatError
from ..attacks import (
    APGD,
    APGDT,
    CAPGD,
    CGBA,
    FAB,
    Attack,
    Donors,
    HopSkipJump,
    OrthogonalPGD,
    RandomNoise,
    RayS,
    SigmaZero,
    SparseRS,
    Square,
    TableWalk,
    TransferPGD,
)
from ..threat import ACCESS, L0, L1, L2, Access, Evading, Targeted, Threat, Untargeted
from ..threat.tabular import Capability

_LARGE = 32
RUGGED = 0.1
"""A sweep that misses more of the fooled than this calls for more queries."""
SATURATED = 0.1
"""Where more inputs than this have no gradient of cross-entropy, its scores are tempered."""
Preset = Literal["smoke", "standard", "thorough"]


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What a preset spends on one sample that withstands.

    steps, margin_steps: of the first loss, and of the second, which few survivors meet anew.
    sweep, sweep_targets: steps of the sweep, and classes that it goes to. near: how many of them,
    the nearest to a mistake, are attacked `again` times with each loss and once with `probe`
    queries; where the sweep misses many, a quarter of them gets `insist` queries. craft,
    neighbours: steps of making an example on a surrogate, and points beside each of them.
    generations, rounds: of a search over rows of a table, and of a walk back from one.
    """

    noise: int
    steps: int
    margin_steps: int
    restarts: int
    targets: int
    target_steps: int
    sweep: int
    sweep_targets: int
    near: int
    again: int
    probe: int
    queries: int
    insist: int
    decisions: int
    craft: int
    neighbours: int
    generations: int
    rounds: int


PRESETS: dict[str, Spend] = {
    "smoke": Spend(
        noise=5, steps=20, margin_steps=20, restarts=1, targets=1, target_steps=20, sweep=30,
        sweep_targets=1, near=16, again=1, probe=100, queries=500, insist=1000, decisions=500,
        craft=10, neighbours=2, generations=30, rounds=20,
    ),
    "standard": Spend(
        noise=20, steps=100, margin_steps=50, restarts=1, targets=3, target_steps=50, sweep=40,
        sweep_targets=1, near=24, again=2, probe=500, queries=2000, insist=5000, decisions=5000,
        craft=20, neighbours=5, generations=100, rounds=60,
    ),
    "thorough": Spend(
        noise=100, steps=100, margin_steps=100, restarts=5, targets=9, target_steps=100, sweep=300,
        sweep_targets=2, near=256, again=5, probe=1000, queries=10000, insist=20000,
        decisions=10000, craft=50, neighbours=20, generations=200, rounds=150,
    ),
}  # fmt: skip


def sweep(
    spend: Spend, threat: Threat, access: Access, classes: int, *, fooled: bool = False
) -> Attack | None:
    """The minimum-norm attack behind the security curve, where gradients allow one.

    FAB is never far from the nearest mistake, even where robust training has bent the boundary:
    there FMN ended at 1.7 times its distance in trials. Whoever was fooled is near a mistake, and
    what counts is towards which class; for the others, far away, the number of steps does.
    """
    if access != "gradients" or any(isinstance(part, Capability) for part in threat.region):
        return None
    if threat.norm == "l0":
        return SigmaZero(steps=(2 if fooled else 4) * spend.sweep)
    steps = 2 * spend.sweep if threat.norm == "l1" else spend.sweep
    if not isinstance(threat.goal, Untargeted) or classes < 3:
        return FAB(steps=steps)
    if fooled:
        steps, targets = steps // 2, spend.sweep_targets + 1
    else:
        targets = spend.sweep_targets
    return FAB(steps=steps, targets=min(targets, classes - 1))


def cascade(
    spend: Spend, threat: Threat, access: Access, classes: int, donors: Donors | None = None
) -> list[Attack]:
    """The attacks on the model itself, in order; none for an attacker who sees nothing of it.

    donors: what an attacker with labels begins with who wants one class, which noise rarely is, or
    changes few features.

    Losses that differ come before more of the same one, and ranked targets last: in trials the
    change from cross-entropy to a margin found most of what a single loss had missed.
    """
    if access == "none":
        return []
    attacks: list[Attack] = [RandomNoise(draws=spend.noise)]
    if access == "gradients":
        attacks += _gradients(spend, threat, classes)
    elif access == "scores":
        search = Square if threat.norm in Square.norms else SparseRS
        attacks.append(search(queries=spend.queries))
    if access == "labels" and threat.norm == "l2":
        attacks.append(CGBA(queries=spend.decisions, rows=donors))
    if access == "labels" and threat.norm == "linf":
        rays = RayS(queries=spend.decisions)
        attacks.append(
            rays if donors is None else HopSkipJump(queries=spend.decisions, rows=donors)
        )
    if access == "labels" and threat.norm in ("l1", "l0"):
        # In trials others' inputs found most in L1, random ones in L0.
        rounds = max(1, spend.decisions // TableWalk.block)
        starts = (donors, None) if donors is not None else (None,)
        attacks += [TableWalk(rounds=rounds, rows=rows) for rows in starts]
    return attacks


def _gradients(spend: Spend, threat: Threat, classes: int) -> list[Attack]:
    if threat.norm not in APGD.norms:
        return [SigmaZero(steps=6 * spend.sweep)]
    steps, restarts = spend.steps, spend.restarts
    if isinstance(threat.goal, Evading):
        joint: list[Attack] = [
            APGD(steps=steps, loss=loss, restarts=restarts) for loss in ("margin", "selective")
        ]
        orthogonal = OrthogonalPGD(steps=steps, restarts=restarts)
        return [*joint, orthogonal] if threat.norm in orthogonal.norms else joint
    if not isinstance(threat.goal, Untargeted | Targeted):
        return [APGD(steps=steps, loss="margin", restarts=restarts + 1)]
    return [
        APGD(steps=steps, loss="ce"),
        APGD(steps=spend.margin_steps, loss="pma", restarts=restarts),
        *_towards(spend, threat, classes),
    ]


def crafted(spend: Spend, threat: Threat, x: Tensor) -> list[Attack]:
    """The attacks that make examples of x (N, ...) on surrogates, plain ones first.

    Raises ThreatError for a norm in which none are made.
    """
    if any(isinstance(part, Capability) for part in threat.region):
        return [CAPGD(steps=2 * spend.craft)]
    # As attacks see it, an Linf ball beside another is a box.
    balls = [part.name for part in threat.region if isinstance(part, L0 | L1 | L2)]
    norm = balls[0] if balls else "linf"
    if norm == "l1":
        return [APGD(steps=2 * spend.craft, loss=loss) for loss in ("ce", "pma")]
    if norm not in TransferPGD.norms:
        raise ThreatError(
            "examples to transfer are made in linf, l2 and l1, the region is "
            f"{threat.region.describe()}; choose one of these norms"
        )
    steps, variance = spend.craft, spend.neighbours
    side = min(x.shape[2:]) if x.ndim == 4 else 0
    if side < _LARGE:
        # In small images a tenth of the size is no small change: there diversity does harm.
        return [TransferPGD(steps=steps), TransferPGD(steps=steps, variance=variance)]
    # 15 pixels of ImageNet's 299 in the paper.
    width = max(3, side // 20 | 1)
    return [
        TransferPGD(steps=steps),
        TransferPGD(steps=steps, diversity=0.5, variance=variance),
        TransferPGD(steps=steps, diversity=0.5, smoothing=width),
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
