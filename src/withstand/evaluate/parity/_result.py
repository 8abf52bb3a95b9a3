"""What a comparison of two pipelines found, and what it means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ...stats import Interval
from .._report import Finding, Verdict
from .._words import percent
from ._difference import Difference, beyond
from ._search import Explanation

SCHEMA = "urn:withstand:parity:1"
CHECK = "preprocessing parity"

_ENOUGH = 20
# Of the spread of a regression's answers, in the median row.
_GRAVE = 0.01
# A suspect that leaves more than this is not worth a word.
_NEAR = 0.8
# Suspects that leave no more than this explain as well as the best one.
_EQUAL = 0.001


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Whether the served pipeline answers as the reference does, and the step that differs.

    tolerance: as a share of the spread of scores; suspects: explanations of the difference, the
    best first; culprit: the one that explains it, or None; finding: the verdict in words.
    """

    difference: Difference
    tolerance: float
    suspects: tuple[Explanation, ...]
    culprit: Explanation | None
    finding: Finding
    provenance: dict[str, Any]

    @property
    def n(self) -> int:
        """Inputs that were compared."""
        return self.difference.n

    @property
    def flips(self) -> Interval:
        """Share of labels that differ by more than the tolerance."""
        return self.difference.flips

    @property
    def differs(self) -> bool:
        """Whether a label flips, or a score differs by more than the tolerance."""
        return beyond(self.difference, self.tolerance)

    @property
    def conclusive(self) -> bool:
        """Whether there is a difference, or equality on enough inputs to speak of it."""
        return self.differs or self.n >= _ENOUGH

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            **vars(self.difference),
            "flips": self.flips.to_dict(),
            "tolerance": self.tolerance,
            "differs": self.differs,
            "conclusive": self.conclusive,
            "culprit": None if self.culprit is None else _plain(self.culprit),
            "suspects": [_plain(each) for each in self.suspects],
            "finding": vars(self.finding),
            "provenance": self.provenance,
        }

    def to_json(self) -> str:
        """The comparison as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def judge(
    difference: Difference,
    tolerance: float,
    suspects: tuple[Explanation, ...],
    culprit: Explanation | None,
) -> Finding:
    """The finding: red where labels flip, amber where only scores differ or too little was seen."""
    verdict, meaning, fix = _words(difference, tolerance, suspects, culprit)
    labelled = difference.flips.n > 0
    return Finding(
        check=CHECK,
        value=difference.flips.value if labelled else difference.median,
        threshold=0.0 if labelled else tolerance * difference.spread,
        verdict=verdict,
        meaning=meaning,
        fix=fix,
    )


def _words(
    difference: Difference,
    tolerance: float,
    suspects: tuple[Explanation, ...],
    culprit: Explanation | None,
) -> tuple[Verdict, str, str]:
    if not beyond(difference, tolerance):
        if difference.n < _ENOUGH:
            return (
                "amber",
                f"only {difference.n} inputs were compared, which is too few to call the pipelines "
                "equal",
                f"compare {_ENOUGH} or more",
            )
        return "green", "the served pipeline answers as the evaluated one does", "none needed here"
    grave = not difference.flips.n and (difference.median or 0.0) > _GRAVE * difference.spread
    verdict: Verdict = "red" if difference.flips.value > 0 or grave else "amber"
    if difference.flips.value > 0:
        what = f"{percent(difference.flips.value)} of the labels flip where the model is served"
    else:
        what = "scores differ where the model is served"
    if difference.noisy:
        return (
            verdict,
            f"{what}; it answers the same input differently from one request to the next",
            "serve in evaluation mode (no dropout, no statistics of the batch) and compare again",
        )
    if culprit is not None:
        left = percent(culprit.left)
        others = [" and ".join(each.steps) for each in suspects[1:] if each.left <= _EQUAL]
        rivals = f"; nothing here tells it from {' or '.join(others)}" if others else ""
        return (
            verdict,
            f"{what}: {culprit.change} ({left} of the difference is left){rivals}",
            culprit.fix,
        )
    nearest = ""
    if suspects and suspects[0].left < _NEAR:
        best = suspects[0]
        nearest = f"; the nearest, that {best.change}, leaves {percent(best.left)}"
    return (
        verdict,
        f"{what}, and no known step explains it{nearest}",
        "compare both pipelines step by step, try suspects of your own, or evaluate the served one",
    )


def _plain(explanation: Explanation) -> dict[str, Any]:
    return {
        "steps": list(explanation.steps),
        "change": explanation.change,
        "fix": explanation.fix,
        "residual": explanation.residual,
        "left": explanation.left,
    }
