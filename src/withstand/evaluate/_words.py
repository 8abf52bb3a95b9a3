"""The report's sentences, the same on the console and on the page."""

from __future__ import annotations

from ._report import Report

_MOVES = {
    "linf": "change every feature by up to {}",
    "l2": "change an input by a Euclidean length of up to {}",
    "l1": "change an input by up to {} in sum over its features",
    "l0": "change up to {} features of an input",
}
_ACCESS = {
    "gradients": "who knows the model and its gradients",
    "scores": "who sees the model's scores",
    "labels": "who sees only the model's answers",
}


def radius(report: Report) -> str:
    """The threat's radius in a few digits; a range where it differs between samples."""
    eps = report.threat["eps"]
    if isinstance(eps, list):
        return f"{min(eps):.4g} to {max(eps):.4g}"
    return f"{eps:.4g}"


def attacker(report: Report) -> str:
    """Who attacks, and what they may change."""
    threat = report.threat
    limit = f" and may ask {threat['queries']:,} times" if threat["queries"] else ""
    move = _MOVES[threat["norm"]].format(radius(report))
    return f"An attacker {_ACCESS[threat['access']]}{limit}, and may {move}"


def headline(report: Report) -> str:
    """The finding in one sentence."""
    fooled = report.fooling_rate
    if fooled.n == 0:
        return "The model gets no input right, so there is nothing to fool."
    return (
        f"{attacker(report)}, fools at least {percent(fooled.value)} of the inputs that the model "
        "gets right."
    )


def percent(share: float) -> str:
    """A share as a percentage with one digit; rounding never makes it 0 or 100 when it is not."""
    text = f"{100 * share:.1f} %"
    if share > 0 and text == "0.0 %":
        return "under 0.1 %"
    return "over 99.9 %" if share < 1 and text == "100.0 %" else text


def worst_slices(report: Report) -> list[tuple[str, str]]:
    """The class and the group with the lowest robust accuracy, where there are several."""
    found = []
    for kind, slices in (("class", report.classes), ("group", report.groups)):
        if len(slices) > 1:
            worst = min(slices, key=lambda s: (s.robust_accuracy.value, s.name))
            found.append((f"worst {kind}", f"{worst.name}, {worst.robust_accuracy} robust"))
    return found


VERDICT = {
    "green": "the number can be believed",
    "amber": "read the findings before relying on the number",
    "red": "do not rely on the number",
}

BOUND = (
    "Robust accuracy is an upper bound: a stronger attacker may lower it. Intervals are Wilson's "
    "at 95 %."
)
