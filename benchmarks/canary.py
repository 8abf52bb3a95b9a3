"""What becomes of a thousand canaries: the guard's own rollouts, without waiting for a clock."""

from __future__ import annotations

from typing import Any

import numpy as np

from withstand.guard.canary import MARGINS, Rollout, Settings
from withstand.stats import Interval, clopper_pearson, upper_bound

RUNS, LOOKS, ALPHA = 1000, 40, 0.05
SETTINGS = Settings(
    alpha=ALPHA,
    least=0.5,
    patience=1e9,
    margins={name: MARGINS[name] for name in ("fooled", "errors")},
)
# Probes of a whole rollout, within which nine of ten equal versions are all the way in.
WITHIN = {
    (0.05, "independent"): 1800,
    (0.1, "independent"): 900,
    (0.3, "independent"): 280,
    (0.05, "paired"): 520,
    (0.1, "paired"): 280,
    (0.3, "paired"): 120,
}
_ALIKE = {"independent": 0.0, "paired": 0.8}
_ERRORS = 0.002
_TRAFFIC = 400
_LOOK, _LONGEST = 200, 6000


class Clock:
    """One that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ended(
    canary: float, control: float, alike: float, probes: int, rng: np.random.Generator
) -> tuple[str, int, float]:
    """How a rollout ends, after how many probes, and the highest weight that it had.

    alike: the share of inputs that are as hard for both versions.
    """
    clock = Clock()
    rollout = Rollout(clock=clock, secret=rng.bytes(32))
    rollout.start(SETTINGS, "benchmark", "")
    most, batch = rollout.weight, probes // LOOKS
    for look in range(LOOKS):
        hard = rng.random(batch)
        other = np.where(rng.random(batch) < alike, hard, rng.random(batch))
        rollout.pairs("fooled", counts(other < canary, hard < control), f"{look}")
        # Steps have enough traffic: what is measured is what the probes decide.
        before = -1.0
        while rollout.weight != before and rollout.state == "running":
            before = rollout.weight
            errors = rng.random((2, _TRAFFIC)) < _ERRORS
            rollout.tallies["errors"].add(counts(*errors))
            clock.now += 1
            rollout.consider(SETTINGS)
            most = max(most, rollout.weight)
        if rollout.state != "running":
            return rollout.state, (look + 1) * batch, most
    return rollout.state, probes, most


def answering(
    canary: list[float], control: list[float], sli: str, rng: np.random.Generator
) -> tuple[str, int]:
    """How a rollout ends that is judged by its answers alone, and the pairs that it used.

    canary, control: how likely each class is; of `unsure`, whether its confidence is low.
    """
    limits = Settings(alpha=ALPHA, least=0.5, patience=1e9, margins={sli: MARGINS[sli]})
    clock, seen = Clock(), 0
    rollout = Rollout(clock=clock, secret=rng.bytes(32))
    rollout.start(limits, "benchmark", "")
    # What is low is found out from the control arm's first hundred.
    sure = np.linspace(0.5, 1, 100)
    for confidence in sure if sli == "unsure" else ():
        rollout.saw(
            "control", limits, status=200, seconds=0.01, flagged=False, label=0,
            confidence=float(confidence),
        )  # fmt: skip
    for _ in range(_LONGEST // _LOOK):
        drawn = [rng.choice(len(one), size=_LOOK, p=one) for one in (canary, control)]
        for pair in zip(*drawn, strict=True):
            for arm, label in zip(("canary", "control"), pair, strict=True):
                rollout.saw(
                    arm, limits, status=200, seconds=0.01, flagged=False, label=int(label),
                    confidence=0.4 if label else 0.9,
                )  # fmt: skip
        seen += _LOOK
        clock.now += 1
        rollout.consider(limits)
        if rollout.state != "running":
            break
    return rollout.state, seen


def counts(first: Any, second: Any) -> list[int]:
    """In both, in the first alone, in the second alone, in neither."""
    return [
        int(np.sum(one))
        for one in (first & second, first & ~second, ~first & second, ~(first | second))
    ]


def _share(k: int) -> str:
    found: Interval = clopper_pearson(k, RUNS)
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def rollouts() -> list[dict[str, Any]]:
    """A canary is let in, or rolled back: 1,000 simulated rollouts of each kind

    Five steps, alpha 0.05, a margin of twice the stable version's fooling rate, errors compared too
    (0.2 % on both arms). *Independent*: the arms answer other inputs. *Paired*: the same ones, four
    of five of which are as hard for both. *Worse*: twice as foolable, exactly at the margin, where
    the promise is tightest. At most: the upper end of 95 % (Clopper-Pearson, one-sided). Probes:
    so many in all, looked at 40 times. Intervals are of 95 %.
    """
    import logging

    logging.getLogger("withstand.guard").setLevel(logging.CRITICAL)
    rows = []
    for (share, way), probes in WITHIN.items():
        rng = np.random.default_rng(int(1000 * share) + probes)
        worse = [ended(2 * share, share, _ALIKE[way], probes, rng) for _ in range(RUNS)]
        equal = [ended(share, share, _ALIKE[way], probes, rng) for _ in range(RUNS)]
        further = sum(most > SETTINGS.steps[0] for _, _, most in worse)
        let_in = [used for state, used, _ in equal if state == "promoted"]
        wrong = sum(state == "promoted" for state, _, _ in worse)
        rows.append(
            {
                "fooled": f"{share:.0%}",
                "probes": way,
                "at most": probes,
                "worse, promoted": wrong,
                "of 1,000 at most": f"{float(upper_bound(wrong, RUNS, 0.05)):.1%}",
                "worse, past the first step": _share(further),
                "worse, rolled back": _share(sum(one[0] == "rolled_back" for one in worse)),
                "equal, promoted": _share(len(let_in)),
                "probes, median": int(np.median(let_in)),
                "equal, rolled back": _share(sum(one[0] == "rolled_back" for one in equal)),
            }
        )
    return rows


def answers() -> list[dict[str, Any]]:
    """A canary's answers are compared: 1,000 simulated rollouts of each kind

    Five steps, alpha 0.05, judged by `labels` (no class's share may differ by 10 percentage points)
    or by `unsure` (twice as many answers of low confidence as the control arm) alone, with a look
    every 200 pairs, up to 6,000. *At the margin* is where the promise is tightest; *beyond* is
    twice as far. At most: the upper end of 95 % (Clopper-Pearson, one-sided). Intervals are of
    95 %.
    """
    import logging

    logging.getLogger("withstand.guard").setLevel(logging.CRITICAL)
    rows = []
    for name, sli, control, steps in (
        ("2 classes, one of 2 %", "labels", [0.98, 0.02], 0.1),
        ("2 classes, even", "labels", [0.5, 0.5], 0.1),
        ("10 classes, even", "labels", [0.1] * 10, 0.1),
        ("a tenth unsure", "unsure", [0.9, 0.1], 0.1),
    ):
        rng = np.random.default_rng(len(rows))
        kinds = {}
        for kind, times in (("equal", 0), ("at the margin", 1), ("beyond", 2)):
            change = [-times * steps / (len(control) - 1)] * len(control)
            change[-1] = times * steps
            canary = [one + more for one, more in zip(control, change, strict=True)]
            kinds[kind] = [answering(canary, control, sli, rng) for _ in range(RUNS)]
        let_in = [used for state, used in kinds["equal"] if state == "promoted"]
        back = [used for state, used in kinds["beyond"] if state == "rolled_back"]
        wrong = sum(state == "promoted" for state, _ in kinds["at the margin"])
        rolled = sum(state == "rolled_back" for state, _ in kinds["equal"])
        rows.append(
            {
                "control arm": name,
                "compared": sli,
                "at the margin, promoted": wrong,
                "of 1,000 at most": f"{float(upper_bound(wrong, RUNS, 0.05)):.1%}",
                "equal, promoted": _share(len(let_in)),
                "pairs, median": int(np.median(let_in)) if let_in else None,
                "equal, rolled back": _share(rolled),
                "beyond, rolled back": _share(len(back)),
                "pairs then, median": int(np.median(back)) if back else None,
            }
        )
    return rows
