"""The report's sentences, the same on the console and on the page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ._report import Finding, Report, Slice, TrainingCost
from .business import attacker_can

_MOVES = {
    "linf": "change every {} by up to {}",
    "l2": "change an input by a Euclidean length of up to {1}",
    "l1": "change an input by up to {1} in sum over its {0}s",
    "l0": "change up to {1} {0}s of an input",
}
_ACCESS = {
    "gradients": "who knows the model and its gradients",
    "scores": "who sees the model's scores",
    "labels": "who sees only the model's answers",
    "none": "who sees nothing of the model",
}
_ABOUT = {
    "RandomNoise": "changes at random, no search",
    "FGSM": "one step along the gradient",
    "PGD": "gradient search with fixed steps",
    "APGD": "gradient search that sets its own steps",
    "APGDT": "gradient search for one other class after the other",
    "CGBA": "labels alone, along the decision boundary",
    "RayS": "labels alone, flips of signs in blocks",
    "FAB": "the smallest change that fools",
    "FMN": "the smallest change that fools",
    "SigmaZero": "the fewest features that fool",
    "Square": "search by questions alone, no gradients",
    "HopSkipJump": "search by the answers alone",
    "CAPGD": "gradient search among the rows that the table allows",
    "TableSearch": "search by scores among the rows that the table allows",
    "TableWalk": "from a row that fools to a cheaper one that fools too",
    "Replay": "examples that earlier runs kept, shown again",
    "Stretch": "kept examples, moved to the edge of the region",
}
_MANNER = {"plain": ", as the model is served", "adaptive": ", through the defences"}
_TRANSFER = "examples made on another model, shown once each"

_CAPABILITY = re.compile(r"\d+ of \d+ features(,|$)")

VERDICT = {
    "green": "the number can be believed",
    "amber": "read the findings before relying on the number",
    "red": "do not rely on the number",
}
BOUND = (
    "Robust accuracy is an upper bound: a stronger attacker may lower it. Intervals are Wilson's "
    "at 95 %."
)


def cost_words(cost: TrainingCost) -> str:
    """What a training cost, in words."""
    took, passes = _seconds(cost.seconds), f"{cost.passes:.2f} gradient passes a sample"
    if cost.factor is None:
        return f"{took}, {passes}"
    standard = _seconds(cost.standard_seconds)
    return f"{cost.factor:.1f} times standard training ({took} for {standard}), {passes}"


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def printable(text: object) -> str:
    """Text without what could steer a terminal, reorder a line or fail to encode."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))


def radius(report: Report) -> str:
    """The threat's radius in a few digits; a range where it differs between samples."""
    eps = report.threat["eps"]
    if isinstance(eps, list):
        return f"{min(eps):.4g} to {max(eps):.4g}"
    return f"{eps:.4g}"


def attacker(report: Report) -> str:
    """Who attacks, and what they may change."""
    threat = report.threat
    verb = "try" if threat["access"] == "none" else "ask"
    limit = f", may {verb} {threat['queries']:,} times" if threat["queries"] else ""
    ball = f"{threat['norm'].capitalize()} <= "
    rest = [part for part in threat["region"].split(" and ") if not part.startswith(ball)]
    pixels = report.x.ndim == 4 and (threat["norm"] == "linf" or report.x.shape[1] == 1)
    move = _MOVES[threat["norm"]].format("pixel" if pixels else "feature", radius(report))
    if report.business is not None:
        can = attacker_can(report.business)
        move = can if implied(report) else f"{move}, and {can}"
        rest = [part for part in rest if not _CAPABILITY.match(part)]
    where = f" ({', '.join(rest)})" if rest else ""
    return f"An attacker {_ACCESS[threat['access']]}{limit} and may {move}{where}"


def implied(report: Report) -> bool:
    """Whether the threat has no norm but the one that a table's capability stands for."""
    threat = report.threat
    every = threat["norm"] == "l0" and threat["eps"] == report.x[0].size
    return report.business is not None and every


def headline(reports: dict[str, Report]) -> str:
    """The finding in one sentence; of several reports, those of the same threat by name."""
    first = next(iter(reports.values()))
    if len(reports) == 1 and not first.fooling_rate.n:
        return "The model gets no input right, so there is nothing to fool."
    if len(reports) == 1 and not first.fooling_rate.value:
        return (
            f"{attacker(first)} fooled none of the {first.fooling_rate.n:,} inputs that the model "
            "gets right, with the attacks tried here."
        )
    shares = [
        f"{percent(report.fooling_rate.value)} of the inputs that the {name + ' ' * bool(name)}"
        "model gets right"
        for name, report in reports.items()
        if report.fooling_rate.n
    ]
    return f"{attacker(first)} fools at least {' and '.join(shares) or 'nothing'}."


def percent(share: float) -> str:
    """A share as a percentage with one digit; rounding never makes it 0 or 100 when it is not."""
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        text = f"{100 * share:.1g}"
    return f"{'99.9' if text == '100.0' and share < 1 else text} %"


def about(name: str) -> str:
    """What an attack does, for somebody who does not know its name; empty for those of others."""
    if name.startswith("transfer from "):
        return _TRANSFER
    manner, _, plain = name.rpartition(" ")
    return _ABOUT.get(plain, "") + _MANNER.get(manner, "")


def defended(report: Report) -> list[str]:
    """What the defences of the model change, in sentences; none where it carries none."""
    found = report.defences
    if found is None:
        return []
    if found.missing:
        return [f"Not adaptively evaluated: {found.missing}. Do not claim robustness from this."]
    told = ["There is no plain attack in this norm, or on this model, to compare with."]
    if found.plain and found.through and found.more:
        told = [
            f"Beyond a plain attack, those that know of the defences fooled "
            f"{percent(found.more.value)} of the right answers. Right under the plain attack: "
            f"{found.plain}; under the same one through the defences: {found.through}; under all: "
            f"{report.robust_accuracy}."
        ]
    if found.masking:
        told.append(
            "Masking: a plain attack says much more than the same attack through the defences. "
            "They hide the gradient, and what they seem to add without it is no robustness."
        )
    return told


def by_robustness(slices: Sequence[Slice]) -> list[Slice]:
    """Classes or groups, the least robust first."""
    return sorted(slices, key=lambda s: (s.robust_accuracy.value, s.name))


def worst_slices(report: Report) -> list[tuple[str, str]]:
    """The class and the group with the lowest robust accuracy, where there are several."""
    found = []
    for kind, slices in (("class", report.classes), ("group", report.groups)):
        if len(slices) > 1:
            worst = by_robustness(slices)[0]
            found.append((f"worst {kind}", f"{worst.name}, {worst.robust_accuracy} robust"))
    return found


def by_weight(findings: Sequence[Finding]) -> list[Finding]:
    """Findings, the gravest first."""
    return sorted(findings, key=lambda f: ("red", "amber", "green").index(f.verdict))
