"""Whether the figures of an evaluation can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from ...evaluate import Finding
from ...stats import Interval, paired_difference
from ._report import Benign, Worst
from ._through import Way

_CUT = 0.05


def alarms(benign: Benign) -> Finding:
    """Whether benign inputs are flagged as seldom as was promised."""
    told = f"{benign.flagged} of {benign.flagged.n:,} benign inputs are flagged"
    return Finding(
        check="false alarms",
        value=benign.flagged.value,
        threshold=benign.promised,
        verdict="green" if benign.compatible else "red",
        meaning=f"{told}, which is compatible with the promised {100 * benign.promised:g} %"
        if benign.compatible
        else f"{told}, and {100 * benign.promised:g} % was promised",
        fix="" if benign.compatible else "Calibrate it anew on inputs like those of production",
    )


def slope(way: Way, adaptive: int) -> Finding:
    """Whether attacks could follow the score."""
    blind = way.cut > _CUT
    return Finding(
        check="slope of the score",
        value=way.cut,
        threshold=_CUT,
        verdict="amber" if blind else "green",
        meaning=f"at {100 * way.cut:.0f} % of the inputs the score has no slope that the "
        f"{adaptive} attacks that know of the detector could follow; they may be blind"
        if blind
        else f"attacks followed {way.told}",
        fix="Give it a differentiable surrogate, and attack harder from scores" if blind else "",
    )


def implausible(aware: Worst, half: Interval) -> Finding:
    """Tramèr 2022: robust detection at eps gives a classifier that is robust at eps / 2."""
    fires = aware.robust.low > half.high
    return Finding(
        check="plausibility",
        value=aware.robust.value,
        threshold=half.value,
        verdict="amber" if fires else "green",
        meaning="right or rejected under all attacks found: "
        f"{aware.robust}; right at half of the radius without a detector: {half}"
        + ("; a detector this good would make a far more robust classifier" if fires else ""),
        fix="Attack harder before you believe it; the attacks here are likely too weak for it"
        if fires
        else "",
    )


def falling(unseen: Mapping[float, Tensor]) -> Iterator[Finding]:
    """More room for the attacker and less success is a sign of attacks that go astray."""
    radii = sorted(unseen)
    for small, large in pairwise(radii):
        lost = int((unseen[small] & ~unseen[large]).sum())
        won = int((unseen[large] & ~unseen[small]).sum())
        gap = paired_difference(lost, won, len(unseen[small]), 0.95)
        fires = gap.low > 0
        yield Finding(
            check="success by radius",
            value=gap.value,
            threshold=0.0,
            verdict="amber" if fires else "green",
            meaning=f"from radius {small:.3g} to {large:.3g} attacks that know of the detector "
            + (
                f"get past it {100 * gap.value:.1f} % less often, though they may do more"
                if fires
                else "get past it no less often"
            ),
            fix="Take more steps and restarts: the detector misleads these attacks"
            if fires
            else "",
        )


def misled(by_gradients: Tensor, by_scores: Tensor) -> Finding:
    """Whoever sees less should not do better: then gradients lead attacks astray.

    Which samples (N,) attacks that know of the detector got past, by what they followed.
    """
    lost = int((by_scores & ~by_gradients).sum())
    won = int((by_gradients & ~by_scores).sum())
    gap = paired_difference(lost, won, len(by_scores), 0.95)
    fires = gap.low > 0
    return Finding(
        check="scores beat gradients",
        value=gap.value,
        threshold=0.0,
        verdict="amber" if fires else "green",
        meaning=f"attacks from scores alone get past for {100 * gap.value:.1f} % more of the "
        "inputs than all that follow gradients: these lead astray"
        if fires
        else "attacks from scores alone get past no more often than those that follow gradients",
        fix="Take more queries, and attack a smooth surrogate of the detector" if fires else "",
    )


def tried(adaptive: Sequence[object], bounded: bool) -> Iterator[Finding]:
    """Whether anybody attacked who knows of the detector."""
    if not adaptive:
        yield Finding(
            check="adaptive attacks",
            value=0.0,
            threshold=1.0,
            verdict="red",
            meaning="no attack that knows of the detector could be run",
            fix="Give the threat access to gradients or scores, in Linf or L2",
        )
    elif not bounded:
        yield Finding(
            check="adaptive attacks",
            value=float(len(adaptive)),
            threshold=1.0,
            verdict="amber",
            meaning="attacks that know of the detector had no gradients",
            fix="Evaluate with access to gradients, as whoever has a copy of the model does",
        )


def strength(preset: str) -> Finding:
    """Whether the attacks were more than a first look."""
    weak = preset == "smoke"
    return Finding(
        check="attack strength",
        value=None,
        threshold=None,
        verdict="amber" if weak else "green",
        meaning="the preset smoke is a first look: stronger attacks may well get past"
        if weak
        else f"attacks had what the preset {preset} spends",
        fix="Evaluate with the preset standard or thorough before you rely on it" if weak else "",
    )
