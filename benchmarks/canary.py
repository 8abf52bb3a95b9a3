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
