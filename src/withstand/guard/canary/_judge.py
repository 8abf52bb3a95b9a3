"""Whether a canary is worse than what stands beside it: yes, no, or not known yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any, Literal

import numpy as np

from ...stats import log_above, log_below, wilson
from ._labels import Labels
from ._settings import PROBED, Margin, Settings
from ._tally import Tally

Verdict = Literal["pass", "fail", "inconclusive"]

_SHOWN = 50.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the pairs of one indicator say so far.

    better, worse: logarithms of the evidence that the canary is within its margin and its limit,
    and that it is not. passes, fails: from where on that is enough. label: of several classes the
    one that is least shown to be within the margin.
    """

    verdict: Verdict
    counts: tuple[int, int, int, int]
    least: int
    better: float
    worse: float
    passes: float
    fails: float
    label: str | None = None

    def told(self) -> dict[str, Any]:
        """As plain values: both shares with their 95 % intervals, and the evidence as e-values."""
        both, canary, control, _ = self.counts
        n = sum(self.counts)
        return {
            "verdict": self.verdict,
            "pairs": n,
            "least": self.least,
            **({} if self.label is None else {"label": self.label}),
            "canary": wilson(both + canary, n).to_dict(),
            "control": wilson(both + control, n).to_dict(),
            "evidence": {
                "not_worse": round(exp(min(self.better, _SHOWN)), 4),
                "needed": round(exp(self.passes), 4),
                "worse": round(exp(min(self.worse, _SHOWN)), 4),
                "enough": round(exp(self.fails), 4),
            },
        }


def judge(tallies: Mapping[str, Tally | Labels], settings: Settings) -> dict[str, Judgement]:
    """What each indicator that is compared says, under one alpha for all looks and steps.

    *Let on though worse.* It needs all indicators, so each may err with alpha. Probes are counted
    over the whole rollout, so theirs is one test; traffic is counted anew at each step, and has
    alpha / steps each time.

    *Rolled back though not worse.* Half of alpha is for what probes show and half for traffic,
    divided by the number of tests. Probes go to both arms alike, so any difference that is shown
    counts; in traffic the arms have other clients, so only one beyond the margin does.

    Labels are a test of each class in each direction: let on where all of them show that the
    difference is within the margin, rolled back where one shows that it is beyond.
    """
    steps = max(1, sum(step < 100 for step in settings.steps))
    probed = sum(name in PROBED for name in settings.margins)
    found = {}
    for name, margin in settings.margins.items():
        by_probes = name in PROBED
        times = 1 if by_probes else steps
        tests = 2 * times * (probed if by_probes else len(settings.margins) - probed)
        if name == "labels":
            tests *= Labels.tests
        found[name] = _judged(
            tallies[name] if name in tallies else Tally(),
            margin,
            fair=Margin(ratio=1.0) if by_probes else margin,
            passes=log(times / settings.alpha),
            fails=log(2 * tests / settings.alpha),
        )
    return found


def overall(found: Mapping[str, Judgement]) -> Verdict:
    """Fail if one fails, pass if there are some and all pass; what has no data does not pass."""
    verdicts = {one.verdict for one in found.values()}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "inconclusive"


def _judged(
    tally: Tally | Labels, margin: Margin, *, fair: Margin, passes: float, fails: float
) -> Judgement:
    if isinstance(tally, Labels):
        return _judged_labels(tally, margin, passes=passes, fails=fails)
    both, canary, control, neither = tally.counts
    counts = (both, canary, control, neither)
    better = float(log_below(*counts, ratio=margin.ratio, more=margin.more))
    worse = float(log_above(*counts, ratio=fair.ratio, more=fair.more))
    if margin.most < 1:
        # Where both arms are bad, neither is worse, and yet nothing is to be let on.
        better = min(better, float(log_below(*counts, ratio=0.0, more=margin.most)))
        worse = max(worse, float(log_above(*counts, ratio=0.0, more=margin.most)))
    return Judgement(
        verdict=_verdict(better, worse, tally.n >= margin.least, passes, fails), counts=counts,
        least=margin.least, better=better, worse=worse, passes=passes, fails=fails,
    )  # fmt: skip


def _judged_labels(labels: Labels, margin: Margin, *, passes: float, fails: float) -> Judgement:
    better, worse, which = 0.0, 0.0, None
    found = labels.rows()
    counts = (0, 0, 0, 0)
    if found:
        rows = list(found.values())
        # In the other direction the arms change places.
        both = np.array([rows, [(one[0], one[2], one[1], one[3]) for one in rows]])
        each = np.moveaxis(both, -1, 0)
        low = log_below(*each, ratio=margin.ratio, more=margin.more).min(0)
        high = log_above(*each, ratio=margin.ratio, more=margin.more).max(0)
        better, worse = float(low.min()), float(high.max())
        at = int(low.argmin())
        which, counts = list(found)[at], rows[at]
    return Judgement(
        verdict=_verdict(better, worse, labels.n >= margin.least, passes, fails), counts=counts,
        least=margin.least, better=better, worse=worse, passes=passes, fails=fails, label=which,
    )  # fmt: skip


def _verdict(better: float, worse: float, enough: bool, passes: float, fails: float) -> Verdict:
    if worse >= fails:
        return "fail"
    return "pass" if better >= passes and enough else "inconclusive"
