"""What a model's defences ask of an evaluation: attacks that know of them, and what they change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from .._errors import ModelError, ThreatError
from ..attacks import APGD, PGD, Attack, SigmaZero, registry
from ..models import Defence, Model, Randomized, defences_of, measured_defences, seen_through
from ..stats import wilson
from ..threat import Threat
from ._answers import Answers
from ._report import Carried, Defences
from ._stages import Stages

_STEPS = 100
_PLAIN_STEPS = 40
_MASKING = 0.05
_FEW = 64
PLAIN, THROUGH = "plain", "adaptive"


@dataclass(kw_only=True)
class Adaptation:
    """The defences of a model, and the way through them.

    view: what is attacked in the model's place, None where there is nothing to lead through;
    missing: why the adaptive attack cannot run, empty where it can. plain: the model as it is
    served, a single draw of a random one, its answers as logits.
    """

    defences: tuple[Defence, ...]
    view: Model | None = None
    random: bool = False
    missing: str = ""
    plain: Model | None = None
    _ran: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, threat: Threat) -> Adaptation:
        """How the threat's attacker goes about the model."""
        found = defences_of(model)
        if not found:
            return cls(defences=())
        if threat.access != "gradients":
            why = f"the threat's access is {threat.access}, and leading through needs gradients"
            return cls(defences=found, missing=why)
        try:
            view = seen_through(model)
        except ModelError as error:
            return cls(defences=found, missing=str(error))
        if view.access != "gradients":
            return cls(defences=found, missing=f"the model gives {view.access} and no gradients")
        for name in {name for defence in found for name in defence.adaptive.attacks}:
            if name not in registry():
                raise ThreatError(f"a defence asks for the attack {name!r}, which is not there")
        random = any(defence.adaptive.draws is not None for defence in found)
        plain = model
        while random and type(plain) is Randomized:
            plain = plain.model
        return cls(defences=found, view=view, random=random, plain=plain)

    def check(self, answers: Answers, served: Model, x: torch.Tensor) -> None:
        """Raise ModelError where the view answers some of x (N, ...) otherwise than the model."""
        if self.view is None or self.random:
            return
        seen = answers.read(answers.raw(x[:_FEW]))
        own = judging(answers, served)
        other = int((seen != own.read(own.raw(x[:_FEW]))).flatten().sum())
        if other:
            raise ModelError(
                f"seen through its defences the model answers {other} of {len(seen)} inputs "
                "otherwise; give Adaptive a view that changes the gradient only"
            )

    def attack(self, stages: Stages) -> None:
        """A plain attack, the same through the defences, and then the attacks that these ask for.

        The first two meet the same inputs, and differ in the gradient alone.
        """
        if self.view is None or self.plain is None:
            return
        norm = stages.threat.norm
        pair: Attack = PGD(steps=_PLAIN_STEPS) if norm in PGD.norms else APGD(steps=40, loss="ce")
        if norm in APGD.norms and self.plain.access == "gradients":
            self._run(stages, pair, PLAIN, self.plain)
            self._run(stages, pair, THROUGH)
        for attack in self._asked(norm):
            self._run(stages, attack, THROUGH)

    def _asked(self, norm: str) -> list[Attack]:
        known = registry()
        asked = {
            (name, *sorted(settings.items())): known[name](**settings)
            for defence in self.defences
            for name, settings in defence.adaptive.attacks.items()
        }
        usual: Attack = APGD(steps=_STEPS) if norm in APGD.norms else SigmaZero(steps=3 * _STEPS)
        fitting = [attack for attack in asked.values() if norm in attack.norms]
        if all(defence.adaptive.attacks for defence in self.defences) and fitting:
            return fitting
        return [*fitting, usual]

    def _run(self, stages: Stages, attack: Attack, manner: str, model: Model | None = None) -> None:
        fooled, _ = stages.attack(attack, manner=manner, model=model)
        self._ran[manner] = self._ran.get(manner, 0) + fooled
        note = stages.record.stages[-1].note
        if note and note != "nobody left to attack" and not self.missing:
            self.missing = note

    @property
    def left_out(self) -> float | None:
        """1 where the adaptive attack did not run, None where there are no defences."""
        return float(bool(self.missing)) if self.defences else None

    def told(self, model: Model, stages: Stages) -> Defences | None:
        """What the report says of the defences; costs that nobody has declared are measured."""
        if not self.defences:
            return None
        threat = stages.threat
        carried = tuple(
            Carried(
                name=defence.name,
                made_for=tuple(_words(made_for) for made_for in defence.threats),
                fits=any(_covers(made_for, threat) for made_for in defence.threats)
                if defence.threats
                else None,
                cost_factor=defence.cost_factor,
                adaptive=defence.adaptive.told,
                masks=defence.masks,
            )
            for defence in measured_defences(model, stages.x)
        )
        by = stages.record.found.by[stages.correct]
        names = [stage.name for stage in stages.record.stages]
        paired = [i for i, name in enumerate(names) if name in (f"{PLAIN} PGD", f"{PLAIN} APGD")]
        if not paired:
            return Defences(carried=carried, missing=self.missing)
        first, n = paired[0], len(stages.x)
        right, plain = len(by), int((by == first).sum())
        through, all_fooled = int((by == first + 1).sum()), int((by >= 0).sum())
        return Defences(
            carried=carried,
            missing=self.missing,
            plain=wilson(right - plain, n),
            through=wilson(right - plain - through, n),
            more=wilson(all_fooled - plain, right),
            masking=None if self.missing else through > _MASKING * right,
        )


def judging(answers: Answers, model: Model) -> Answers:
    """The same questions to another model, which may have labels only."""
    return replace(answers, model=model, labels=model.access in ("labels", "none"))


def _covers(made_for: Threat, threat: Threat) -> bool:
    """Whether who has `made_for` in mind has the threat in mind too."""
    same = made_for.norm == threat.norm and made_for.access == threat.access
    widest = np.max(np.asarray(threat.describe()["eps"], np.float64))
    return bool(same and np.min(np.asarray(made_for.describe()["eps"], np.float64)) >= widest)


def _words(threat: Threat) -> str:
    told = threat.describe()
    where = told["region"] if threat.bounded else f"any {threat.norm.capitalize()}"
    who = "unaware attacker" if threat.access == "none" else f"access {threat.access}"
    return f"{where}, {who}"
