"""What a detector is good for, in words that cannot be misread."""

from __future__ import annotations

from ...evaluate import Trust
from ...stats import Interval
from ._report import Benign, Level, Verdict, Worst

HOLDS, GAIN, EFFORT = 0.5, 0.1, 3.0
"""The least that the unfavourable end of an interval must reach: TPR, gain in USR, queries."""


def verdict(
    aware: Worst | None,
    unaware: Worst | None,
    benign: Benign,
    gain: Interval,
    effort: Interval | None,
    trust: Trust,
    *,
    by_gradients: bool,
) -> Verdict:
    """The verdict on the worst case at the threat's radius; no data is never a pass.

    by_gradients: the attacker has them, whom the price of questions does not slow down.
    """
    empty = Interval(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
    tpr = empty if aware is None else aware.tpr
    level, words, reasons = _judged(aware, tpr, gain, None if by_gradients else effort, trust)
    if level == "non-adaptive only" and unaware is not None and unaware.tpr.low < HOLDS:
        words += (
            " Of attacks that do not know of it, too, it flags surely not more than "
            f"{_percent(unaware.tpr.low)}."
        )
    doubts = [f.check for f in trust.findings if f.verdict == "amber"]
    if level == "holds" and doubts:
        words += f" Do not rely on that before you have read of: {', '.join(doubts)}."
    if unaware is not None and unaware.tpr.n:
        reasons.append(
            f"Of the successful attacks that do not know of it, it flags {unaware.tpr} in the "
            "worst case over all of them."
        )
    reasons.append(
        f"It flags {benign.flagged} of benign inputs, promised was at most "
        f"{100 * benign.promised:g} %."
    )
    return Verdict(
        level=level, words=words, reasons=tuple(reasons), tpr=tpr, gain=gain, effort=effort
    )


def _judged(
    aware: Worst | None,
    tpr: Interval,
    gain: Interval,
    effort: Interval | None,
    trust: Trust,
) -> tuple[Level, str, list[str]]:
    red = [finding for finding in trust.findings if finding.verdict == "red"]
    if red:
        reasons = [f"{finding.check}: {finding.meaning}. {finding.fix}." for finding in red]
        return "not shown", f"NOT SHOWN: do not rely on these figures; {red[0].meaning}.", reasons
    if aware is None or not tpr.n:
        return (
            "not shown",
            "NOT SHOWN: no attack fooled the model, so nothing is known of the detector.",
            ["Attack harder, or at a larger radius."],
        )
    told = (
        f"Of the successful attacks that know of it, it flags {tpr} in the worst case; "
        f"{aware.usr} of all inputs are fooled and not flagged."
    )
    if tpr.low >= HOLDS:
        words = (
            "HOLDS: also an attacker who knows of the detector is flagged in at least "
            f"{_percent(tpr.low)} of the successful attacks tried here."
        )
        return "holds", words, [told]
    raised = []
    if gain.low >= GAIN:
        raised.append(
            f"it keeps {gain} of all inputs from being fooled unseen, compared with the bare model"
        )
    if effort is not None and effort.low >= EFFORT:
        raised.append(f"a success from scores alone takes {_times(effort)} the queries")
    if raised:
        words = (
            "RAISES COST: it does not stop an attacker who knows of the detector "
            f"({_percent(aware.usr.value)} of all inputs are fooled and not flagged), but slows "
            f"one down: {' and '.join(raised)}."
        )
        return "raises cost", words, [told]
    words = (
        "NON-ADAPTIVE ONLY: an attacker who knows of the detector gets past it. Use it to notice "
        "careless attacks; do not count on it as a defence."
    )
    return "non-adaptive only", words, [told]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _times(ratio: Interval) -> str:
    return f"{ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}] times"
