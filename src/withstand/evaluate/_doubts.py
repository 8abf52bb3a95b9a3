"""What an evaluation notices on its way and judges at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..attacks import APGD, CAPGD, FGSM
from ..models import Model, adapt
from ..threat import Access, MultiLabel, Regression, Threat
from ._cascade import SATURATED, Spend
from ._probe import Probe, probe
from ._record import Record
from ._report import Trust
from ._stages import Stages
from ._tables import capability_of
from .diagnosis import Case, HandedIn, Purse, Trace, handed_in, judge, traced

_PROBED = 64
_TRACED = 16


@dataclass(kw_only=True)
class Doubts:
    """Signs for the diagnosis.

    handed_in, probabilities, probe: of the model; again: how many fresh starts have fooled;
    doubled: how many twice the steps have, whose path is the trace; swept: a sweep was made.
    """

    handed_in: HandedIn
    probabilities: bool = False
    probe: Probe | None = None
    again: int | None = None
    doubled: int | None = None
    trace: Trace | None = None
    swept: bool = False

    @classmethod
    def first(cls, model: Model, access: Access, x: Tensor, record: Record) -> Doubts:
        """What a model with gradients is like before it is held, by one call on a few of x."""
        if access != "gradients":
            return cls(handed_in=HandedIn())
        record.asked += len(x[:4])
        return cls(handed_in=handed_in(model, x[:4]))

    def adapted(self, model: Model, raw: Tensor, threat: Threat) -> tuple[Model, list[str]]:
        """The model with logits for answers, given some raw ones, and what was done about them."""
        if isinstance(threat.goal, Regression | MultiLabel):
            return model, []
        model, notes = adapt(model, raw)
        self.probabilities = getattr(model, "kind", "").startswith("probabilit")
        return model, notes

    @property
    def blind(self) -> bool:
        """Whether there are no gradients to follow."""
        return self.probe is not None and self.probe.zero_gradients > 0.95

    def look(self, stages: Stages, clean: Tensor) -> None:
        """A first look at the gradients of some right samples; clean: scores of all (N, K)."""
        chosen = stages.correct.nonzero()[:_PROBED, 0]
        if not len(chosen):
            return
        model, goal = stages.answers.model, stages.threat.goal
        self.probe = probe(model, goal, stages.x[chosen], stages.y[chosen], clean[chosen])
        stages.record.asked += 2 * len(chosen)
        stages.record.asked_back += 2 * len(chosen)

    def attack(self, stages: Stages, spend: Spend) -> None:
        """What sound gradients leave nothing to: a single step, and twice the steps."""
        norm = stages.threat.norm
        if capability_of(stages.threat) is not None:
            if not self.blind:
                longer = CAPGD(steps=2 * spend.craft, restarts=spend.restarts)
                self.doubled = stages.attack(longer, near=_TRACED, seed=stages.seed + 7)[0]
            return
        if norm in FGSM.norms:
            saturated = self.probe is not None and self.probe.saturated > SATURATED
            stages.attack(FGSM(loss="tempered" if saturated else "ce"))
        if norm in APGD.norms and not self.blind:
            attack, self.trace = traced(APGD(steps=2 * spend.margin_steps, loss="pma"))
            # It is not kept in the checkpoint, which has no room for the trace.
            seed = stages.seed + 7
            self.doubled = stages.attack(attack, near=_TRACED, seed=seed, kept=False)[0]

    def judge(
        self, stages: Stages, clean: Tensor, classes: int, left_out: float | None = None
    ) -> Trust:
        """Whether the number can be believed, for a small share of what it has cost.

        left_out: 1 where defences were not adaptively evaluated, None where there are none.
        """
        record, model, threat = stages.record, stages.answers.model, stages.threat
        cost, limit = record.cost(), stages.budget.seconds
        spent = cost.forwards + cost.backwards
        late = limit is not None and cost.wall_seconds >= limit
        # A black box is not asked more than the threat allows.
        asks = stages.access == "gradients" and not late
        purse = Purse(left=max(spent // 20, min(4000, spent // 5)) if asks else 0)
        low, high = np.min(model.domain.lower), np.max(model.domain.upper)
        eps = np.broadcast_to(np.asarray(threat.describe()["eps"], np.float64), len(stages.x))
        case = Case(
            model=model,
            handed_in=self.handed_in,
            probabilities=self.probabilities,
            threat=threat,
            access=stages.access,
            classes=classes,
            x=stages.x,
            y=stages.y,
            clean=clean,
            correct=stages.correct,
            eps=torch.from_numpy(eps.copy()),
            span=float(high - low),
            found=record.found,
            stages=tuple(record.stages),
            surrogates=tuple(source.told() for source in record.sources),
            probe=self.probe,
            missed=record.missed,
            trace=self.trace,
            doubled=self.doubled,
            again=self.again,
            swept=self.swept,
            unadapted=left_out,
            seed=stages.seed,
            batch=stages.answers.batch,
            purse=purse,
        )
        trust = judge(case, stages.telling("diagnosis"))
        record.asked += purse.forwards
        record.asked_back += purse.backwards
        return trust
