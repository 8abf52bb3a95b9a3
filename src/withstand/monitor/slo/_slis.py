"""The ten indicators: what each one is, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Sli:
    """One indicator.

    kind: share, of events that are good or bad; figure, of values. unit: share, s, or none.
    source: where its events or values come from. better: whether low or high figures are better.
    bad: what makes an event count against it, empty for a figure. ids: of MITRE ATLAS and OWASP,
    as far as it is about one of their techniques.
    """

    id: str
    name: str
    kind: Literal["share", "figure"]
    unit: str
    source: str
    better: Literal["low", "high"]
    meaning: str
    bad: str = ""
    ids: tuple[str, ...] = ()


SLIS: dict[str, Sli] = {
    sli.id: sli
    for sli in (
        Sli(
            id="M1", name="fooling rate", kind="share", unit="share", better="low",
            source="adversarial probes of permitted attacks",
            meaning="Share of attacked inputs that the model got wrong then.",
            bad="the probe fooled the model", ids=("AML.T0015", "AML.T0043", "ML01:2023"),
        ),
        Sli(
            id="M2", name="detector true positive rate", kind="share", unit="share", better="high",
            source="adversarial probes of permitted attacks",
            meaning="Share of attacked inputs of which a query was flagged.",
            bad="no query of the probe was flagged", ids=("AML.M0015", "ML01:2023"),
        ),
        Sli(
            id="M3", name="detector false positive rate", kind="share", unit="share", better="low",
            source="benign probes, and flagged inputs that somebody has reviewed",
            meaning="Share of benign inputs that were flagged.",
            bad="a benign input was flagged", ids=("AML.M0015",),
        ),
        Sli(
            id="M4", name="confidence variance", kind="figure", unit="", better="low",
            source="the guard's evidence: the highest score of each answered row",
            meaning="Variance of the model's confidence within an hour, by model.",
        ),
        Sli(
            id="M5", name="input anomaly rate", kind="share", unit="share", better="low",
            source="the guard's evidence: decisions on which a detector gave a score",
            meaning="Share of decisions that a sensor other than those on queries has flagged.",
            bad="a detector has flagged the input", ids=("AML.T0043", "ML01:2023"),
        ),
        Sli(
            id="M6", name="degradation after a defence", kind="figure", unit="share", better="low",
            source="two reports of `withstand evaluate`: monitor.degradation",
            meaning="Clean accuracy before a defence, less that after it.",
        ),
        Sli(
            id="M7", name="query anomaly rate", kind="share", unit="share", better="low",
            source="the guard's evidence: decisions on which a watch on queries gave a score",
            meaning="Share of decisions that the sensors queries, search, extraction or answers "
            "have flagged.",
            bad="a watch on queries has flagged the request",
            ids=("AML.T0040", "AML.T0024.002", "ML05:2023"),
        ),
        Sli(
            id="M8", name="time to detect", kind="figure", unit="s", better="low",
            source="campaigns: from the first flagged request to the page",
            meaning="Seconds from the first flagged request of a campaign to its page, median.",
        ),
        Sli(
            id="M9", name="time to recover", kind="figure", unit="s", better="low",
            source="incidents: from their opening to their mitigation",
            meaning="Seconds from an incident's opening to its mitigation, median.",
        ),
        Sli(
            id="M10", name="adversarial test coverage", kind="figure", unit="share", better="high",
            source="`pytest --robustness-coverage`: monitor.coverage",
            meaning="Share of the project's tests that are robustness tests.",
            ids=("AML.M0008",),
        ),
    )
}  # fmt: skip
"""All of them, by their ids."""
