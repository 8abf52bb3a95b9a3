"""From what was found for each sample to the report's figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..data import Dataset
from ..stats import Interval, quantile_interval, wilson
from ..threat import Access, MultiLabel, Regression, Targeted, Threat, Untargeted, techniques
from ..threat.tabular import Capability, Table
from ._found import Found
from ._measures import perceptibility, severity_of
from ._report import Cost, CurvePoint, Defences, Report, Samples, Slice, Stage, Surrogate, Trust
from .business import Attacked, Business, business_of

_POINTS = 41


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an evaluation knows at its end; tensors hold one entry for each sample (N, ...).

    trust: what was found about the number; swept: there is a curve. scores: the model's at x and at
    x_adv (N, K), NaN where it was not asked, None where it gives none.
    """

    data: Dataset
    threat: Threat
    access: Access
    domain: tuple[float, float]
    x: Tensor
    found: Found
    correct: Tensor
    clean_answer: Tensor
    stages: tuple[Stage, ...]
    surrogates: tuple[Surrogate, ...]
    trust: Trust
    defences: Defences | None
    swept: bool
    cost: Cost
    provenance: dict[str, Any]
    notes: tuple[str, ...]
    scores: tuple[Tensor, Tensor] | None = None

    @property
    def fooled(self) -> Tensor:
        """Which samples were fooled (N,)."""
        return self.found.fooled

    @property
    def robust(self) -> Tensor:
        """Which samples are right and were not fooled (N,)."""
        return self.correct & ~self.fooled


def summarise(facts: Facts, costs: Sequence[Sequence[float]] | None) -> Report:
    """The report; costs is the user's matrix of severity, if any."""
    fooled, robust = facts.fooled, facts.robust
    n, correct = len(facts.x), int(facts.correct.sum())
    label = facts.data.y
    clean, adversarial = facts.clean_answer.numpy(), facts.found.answer.numpy()
    table = _table(facts)
    return Report(
        clean_accuracy=wilson(correct, n),
        robust_accuracy=wilson(int(robust.sum()), n),
        fooling_rate=wilson(int(fooled.sum()), correct),
        trust=facts.trust,
        attacks=facts.stages,
        surrogates=facts.surrogates,
        defences=facts.defences,
        cost=facts.cost,
        threat={
            **facts.threat.describe(),
            "techniques": [asdict(technique) for technique in techniques(facts.access)],
        },
        provenance=facts.provenance,
        samples=Samples(
            label=label,
            clean_answer=clean,
            adversarial_answer=adversarial,
            status=_status(facts),
            attack=tuple(facts.stages[i].name if i >= 0 else "" for i in facts.found.by.tolist()),
            distance=facts.found.distance.numpy(),
            forwards=facts.found.forwards.numpy(),
            backwards=facts.found.backwards.numpy(),
            first_success=facts.found.first.numpy(),
        ),
        x=facts.data.x,
        x_adv=facts.found.x_adv.cpu().numpy(),
        domain=facts.domain,
        curve=_curve(facts),
        median_distance=None if _unmeasured(facts, table) else _median(facts),
        classes=_classes(facts),
        groups=_slices(facts, facts.data.groups, str),
        perceptibility=()
        if table is not None
        else perceptibility(
            facts.x[fooled], facts.found.x_adv[fooled], facts.domain[1] - facts.domain[0]
        ),
        severity=None if costs is None else severity_of(costs, label, clean, adversarial),
        business=None if table is None else _business(facts, *table),
        table=None if table is None else table[0],
        class_names=facts.data.classes,
        feature_names=facts.data.features,
        notes=facts.notes,
    )


def _table(facts: Facts) -> tuple[Table, Capability] | None:
    """The table that was attacked, with what the threat allows there."""
    for part in facts.threat.region:
        if isinstance(part, Capability):
            return facts.data.table or Table(capability=part), part
    return None


def _business(facts: Facts, table: Table, capability: Capability) -> Business:
    return business_of(
        table,
        capability,
        Attacked(
            x=facts.data.x,
            x_adv=facts.found.x_adv.cpu().numpy(),
            correct=facts.correct.numpy(),
            fooled=facts.fooled.numpy(),
            label=_named(facts, facts.data.y),
            before=_named(facts, facts.clean_answer.numpy()),
            after=_named(facts, facts.found.answer.numpy()),
            confidence=_confidence(facts),
            groups=facts.data.groups,
        ),
    )


def _named(facts: Facts, values: Any) -> list[str]:
    """Labels or answers (N, ...) in words."""
    names = facts.data.classes
    if names and np.ndim(values) == 1 and np.issubdtype(values.dtype, np.integer):
        return [names[k] if 0 <= k < len(names) else str(k) for k in values.tolist()]
    return [str(value) for value in values.tolist()]


def _confidence(facts: Facts) -> Any:
    """The share (N, 2) that the scores give the true class at x and x_adv, NaN where unknown."""
    label = facts.data.y
    if facts.scores is None or not isinstance(facts.threat.goal, Untargeted | Targeted):
        return np.full((len(label), 2), np.nan)
    shares = [scores.double().softmax(1).cpu().numpy() for scores in facts.scores]
    return np.stack([share[np.arange(len(label)), label] for share in shares], 1)


def _status(facts: Facts) -> tuple[str, ...]:
    words = np.full(len(facts.x), "withstood", dtype=object)
    words[facts.found.unfinished.numpy()] = "budget spent"
    words[facts.fooled.numpy()] = "fooled"
    words[~facts.correct.numpy()] = "already wrong"
    return tuple(words)


def _curve(facts: Facts) -> tuple[CurvePoint, ...]:
    """Robust accuracy at radii around the threat's own; empty if nothing looked below it."""
    if not facts.swept:
        return ()
    distance = facts.found.distance.numpy()
    eps = float(np.max(facts.threat.describe()["eps"]))
    farthest = float(np.max(distance[np.isfinite(distance)], initial=0.0))
    wide = 1.05 * farthest
    longest = min(max(1.25 * eps, wide), 4 * eps) if np.isfinite(eps) else wide
    radii = sorted({*np.linspace(0, longest, _POINTS).tolist(), min(eps, longest)})
    n = len(distance)
    return tuple(
        CurvePoint(eps=r, robust_accuracy=wilson(int((distance > r).sum()), n)) for r in radii
    )


def _classes(facts: Facts) -> tuple[Slice, ...]:
    if isinstance(facts.threat.goal, Regression | MultiLabel):
        return ()
    names = facts.data.classes
    return _slices(facts, facts.data.y, lambda k: names[int(k)] if names else str(int(k)))


def _slices(facts: Facts, groups: Any, name: Callable[[Any], str]) -> tuple[Slice, ...]:
    if groups is None:
        return ()
    correct, robust = facts.correct.numpy(), facts.robust.numpy()
    found = []
    for group in np.unique(groups):
        rows = np.asarray(groups == group)
        n = int(rows.sum())
        found.append(
            Slice(
                name=name(group),
                clean_accuracy=wilson(int((correct & rows).sum()), n),
                robust_accuracy=wilson(int((robust & rows).sum()), n),
            )
        )
    return tuple(found)


def _median(facts: Facts) -> Interval:
    """Of all samples; infinite where no mistake was found of half of them."""
    return quantile_interval(facts.found.distance.numpy(), 0.5)


def _unmeasured(facts: Facts, table: tuple[Table, Capability] | None) -> bool:
    """Whether there is no norm but the one that a table's capability stands for."""
    every = facts.threat.norm == "l0" and facts.threat.describe()["eps"] == facts.x.shape[1]
    return table is not None and every
