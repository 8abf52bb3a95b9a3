"""Which attacks a detector meets: those that do not know of it, and those that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...attacks import (
    APGD,
    CGBA,
    DDN,
    FMN,
    PGD,
    Attack,
    CarliniWagner,
    OrthogonalPGD,
    Problem,
    RayS,
    Spatial,
    Square,
    TableSearch,
    WeightedPGD,
)
from ...evaluate import weakest
from ...models import Model
from ...threat import L2, Access, Linf, Targeted, Threat
from ...threat.tabular import Capability
from .._detector import Detector
from ._attempt import Attempt
from ._keep import endless
from ._matching import FeatureMatching, matching
from ._through import Way
from ._view import Past, Rejecting, Watched

FIRST, SUREST, SMALLEST = "first success", "surest", "smallest change"
QUIETEST, REJECTED = "least suspicious", "rejected when flagged"


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What a preset spends on one sample; few: samples for attacks on labels."""

    steps: int
    adaptive: int
    restarts: int
    guides: int
    smallest: int
    searches: int
    queries: int
    decisions: int
    few: int


PRESETS: dict[str, Spend] = {
    "smoke": Spend(
        steps=20, adaptive=40, restarts=1, guides=1, smallest=30, searches=2, queries=200,
        decisions=150, few=10,
    ),
    "standard": Spend(
        steps=40, adaptive=100, restarts=2, guides=2, smallest=100, searches=4, queries=1000,
        decisions=1000, few=20,
    ),
    "thorough": Spend(
        steps=100, adaptive=200, restarts=5, guides=5, smallest=300, searches=9, queries=5000,
        decisions=5000, few=50,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What is attacked: a detector, the model as attacks see it, the samples that are right.

    rows: the places of these among `of`, few: of the first ones, among `few_of`. guides: benign
    inputs (G, ...). slack: what a score may differ by between batches.
    """

    detector: Detector
    model: Model
    way: Way
    access: Access
    rows: Tensor
    of: int
    few: Tensor
    few_of: int
    guides: Tensor
    slack: float


def tabular(threat: Threat) -> bool:
    """Whether what the attacker can do is told by a table, in which norms mean nothing."""
    return any(isinstance(part, Capability) for part in threat.region)


def unaware(target: Target, threat: Threat, radius: float, spend: Spend) -> Iterator[Attempt]:
    """The attacks that do not know of the detector, at one radius."""
    norm, access = threat.norm, target.access
    threat = _open(threat, access)
    tried = Attempt(
        attack=PGD(steps=spend.steps),
        model=target.model,
        threat=threat,
        radius=radius,
        knows=False,
        kept=FIRST,
        rows=target.rows,
        of=target.of,
    )
    if tabular(threat):
        if access in ("gradients", "scores"):
            asking = replace(tried, threat=_open(threat, "scores"))
            yield replace(asking, attack=TableSearch(generations=spend.steps))
        return
    if access == "gradients":
        on = replace(tried, threat=replace(threat, goal=endless(threat.goal)), kept=SUREST)
        if norm in PGD.norms:
            yield tried
            yield replace(on, best=True)
        if norm in APGD.norms:
            yield replace(on, attack=APGD(steps=spend.steps, loss="ce"), best=True)
        least: Attack = DDN(steps=spend.smallest) if norm == "l2" else FMN(steps=spend.smallest)
        yield replace(tried, attack=least, threat=threat.unbounded(), kept=SMALLEST, limit=radius)
    if access in ("gradients", "scores") and norm in Square.norms:
        yield replace(tried, attack=Square(queries=spend.queries))
    if norm in ("linf", "l2") and len(target.few):
        label: Attack = (RayS if norm == "linf" else CGBA)(queries=spend.decisions)
        yield replace(tried, attack=label, rows=target.few, of=target.few_of)


def beyond(target: Target, threat: Threat, x: Tensor, spend: Spend) -> Iterator[Attempt]:
    """Attacks outside the threat's region: what else the detector may meet."""
    tried = Attempt(
        attack=CarliniWagner(steps=max(spend.smallest, 50), searches=spend.searches, constant=1.0),
        model=target.model,
        threat=replace(_open(threat, target.access), region=L2(torch.inf)),
        radius=torch.inf,
        knows=False,
        kept=SMALLEST,
        rows=target.rows,
        of=target.of,
        counts=False,
    )
    if tabular(threat):
        return
    if target.access == "gradients":
        yield tried
    if x.ndim == 4:
        anywhere = Linf(float(x.max() - x.min()) + 1)
        turned = Spatial(angles=7, shifts=3)
        yield replace(
            tried, attack=turned, threat=replace(tried.threat, region=anywhere), kept=FIRST
        )


def aware(target: Target, threat: Threat, radius: float, spend: Spend) -> Iterator[Attempt]:
    """The attacks that know of the detector, at one radius."""
    steps, restarts, norm = spend.adaptive, spend.restarts, threat.norm
    detector, access, follow = target.detector, target.access, target.way.suspicion
    goal = Past(threat.goal, slack=target.slack, endless=target.way.random)
    tried = Attempt(
        attack=OrthogonalPGD(steps=steps, restarts=restarts),
        model=Watched(detector, suspicion=follow),
        threat=replace(_open(threat, access), goal=goal),
        radius=radius,
        knows=True,
        kept=QUIETEST,
        rows=target.rows,
        of=target.of,
        best=True,
    )
    if tabular(threat):
        if access in ("gradients", "scores"):
            asking = replace(tried, threat=_open(tried.threat, "scores"), best=False)
            search = TableSearch(generations=steps)
            yield replace(asking, attack=search, model=Watched(detector, access="scores"))
        return
    if access == "gradients" and norm in OrthogonalPGD.norms:
        yield tried
        yield replace(tried, attack=WeightedPGD(steps=2 * steps, restarts=restarts))
    if access == "gradients" and norm in APGD.norms:
        selective = APGD(steps=2 * steps, loss="selective", restarts=restarts)
        yield replace(tried, attack=selective)
        yield replace(tried, attack=APGD(steps=2 * steps, loss="margin"))
    if access == "gradients" and norm in FeatureMatching.norms:
        found = matching(
            detector,
            target.guides,
            suspicion=follow,
            target=threat.goal.target if isinstance(threat.goal, Targeted) else None,
            steps=steps,
            nearest=spend.guides,
        )
        if found is not None:
            view, match = found
            guided = replace(goal, features=match.guides.shape[1])
            yield replace(
                tried, attack=match, model=view, threat=replace(tried.threat, goal=guided)
            )
    if access in ("gradients", "scores") and norm in Square.norms:
        asking = replace(tried, threat=_open(tried.threat, "scores"))
        square, within = Square(queries=spend.queries), SquareFromWithin(queries=spend.queries)
        yield replace(asking, attack=square, model=Watched(detector, access="scores"))
        yield replace(asking, attack=within, model=Rejecting(detector), kept=REJECTED)
    if access == "labels" and norm == "linf" and len(target.few):
        yield replace(
            tried,
            attack=RayS(queries=spend.decisions),
            model=Watched(detector, access="labels"),
            kept=FIRST,
            rows=target.few,
            of=target.few_of,
            best=False,
        )


class SquareFromWithin(Square):
    """Square from the sample itself, which is not flagged: who is rejected at once learns nothing.

    Stripes over the whole picture, with which it begins elsewhere, are what detectors see first.
    """

    def init(self, problem: Problem) -> Any:
        return super().init(problem)._replace(best=problem.x)


def _open(threat: Threat, access: Access) -> Threat:
    """The threat with an access that the attack on this model may use."""
    return replace(threat, access=weakest(threat.access, access))
