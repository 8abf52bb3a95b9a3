"""How examples made on one model fare against others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import DataError, ModelError
from ..attacks import APGD, Attack, TransferPGD, craft, sample_keys
from ..data import Dataset
from ..models import Model, adapt
from ..stats import Interval, wilson
from ..threat import Goal, MultiLabel, Regression, Targeted, Threat


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Fooling rates of examples by the model they are made on, then by the model they are shown to.

    A rate's denominator is the inputs that both models answer rightly; nothing is said of an
    example of an input that either gets wrong by itself. The diagonal is the attack's white-box
    fooling rate. A model without gradients is a victim only: as a source it has no data.
    """

    rates: dict[str, dict[str, Interval]]
    clean_accuracy: dict[str, Interval]
    attack: str
    threat: dict[str, Any]
    seed: int

    @property
    def models(self) -> tuple[str, ...]:
        """The names, in the order given."""
        return tuple(self.clean_accuracy)

    @property
    def strongest(self) -> tuple[str, str] | None:
        """The source and the other model that it fools most surely (by the interval's lower end).

        None where no cell off the diagonal has data.
        """
        pairs = [
            (source, victim)
            for source, row in self.rates.items()
            for victim, rate in row.items()
            if source != victim and rate.n
        ]
        return max(pairs, key=lambda pair: self.rates[pair[0]][pair[1]].low, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a rate without data is null with n = 0."""
        return {
            "rates": {
                source: {victim: rate.to_dict() for victim, rate in row.items()}
                for source, row in self.rates.items()
            },
            "clean_accuracy": {name: rate.to_dict() for name, rate in self.clean_accuracy.items()},
            "denominator": "inputs that both source and victim answer rightly",
            "attack": self.attack,
            "threat": self.threat,
            "seed": self.seed,
        }


def transfer_matrix(
    models: dict[str, Model],
    data: Dataset,
    threat: Threat,
    *,
    attack: Attack | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> TransferMatrix:
    """Make examples on each model with gradients and show them to every model, once each.

    models: by name, of the same raw input; an `Ensemble` can be one of them. attack: a gradient
    attack that uses the whole radius; if not given TransferPGD, on images of 32 pixels and more
    with diversity, or APGD where the norm is L1. Victims answer one clean query for each input
    and one for each example, those with scores some more to see what kind they are. Raises
    ModelError where no model has gradients, DataError or ThreatError for what cannot be attacked.
    """
    if not any(model.access == "gradients" for model in models.values()):
        raise ModelError(
            "no model gives gradients to make examples with; add one that does, or a surrogate of "
            "one of them (train_surrogate)"
        )
    for name, model in models.items():
        for bound in ("lower", "upper"):
            first = next(iter(models.values())).domain
            if not np.array_equal(getattr(model.domain, bound), getattr(first, bound)):
                raise DataError(
                    f"{name} has another domain than the first model; give all of them the same "
                    "raw input, with a Pipeline where one needs another scale"
                )
    x = torch.from_numpy(np.ascontiguousarray(data.x))
    y = torch.from_numpy(np.ascontiguousarray(data.y))
    attack = attack or _default(threat, x)
    keys = sample_keys(x, y)
    ready = {name: _ready(model, x[:batch_size], threat.goal) for name, model in models.items()}
    right = {name: _right(model, x, y, threat.goal, batch_size) for name, model in ready.items()}
    rates: dict[str, dict[str, Interval]] = {}
    for source, model in ready.items():
        rows = right[source].nonzero()[:, 0]
        made = x.clone()
        if model.access == "gradients" and len(rows):
            made[rows] = craft(
                attack,
                model,
                x[rows].to(_device(model)),
                y[rows].to(_device(model)),
                threat.take(rows.numpy()),
                seed=seed,
                batch_size=batch_size,
                keys=keys[rows],
            ).cpu()
        rates[source] = {}
        for victim, other in ready.items():
            both = (right[source] & right[victim]).nonzero()[:, 0]
            if model.access != "gradients":
                both = both[:0]
            hits = _hits(other, made[both], y[both], threat.goal, batch_size)
            rates[source][victim] = wilson(int(hits.sum()), len(both))
    return TransferMatrix(
        rates=rates,
        clean_accuracy={name: wilson(int(r.sum()), len(r)) for name, r in right.items()},
        attack=repr(attack),
        threat=threat.describe(),
        seed=seed,
    )


def _default(threat: Threat, x: Tensor) -> Attack:
    if threat.norm == "l1":
        return APGD(steps=40, loss="ce")
    # In small images a tenth of the size is no small change: there diversity does harm.
    large = x.ndim == 4 and min(x.shape[2:]) >= 32
    return TransferPGD(steps=20, diversity=0.5 if large else 0.0)


def _device(model: Model) -> torch.device:
    return getattr(model, "device", torch.device("cpu"))


def _ready(model: Model, x: Tensor, goal: Goal) -> Model:
    """The model, with logits where it answers with probabilities."""
    if model.access == "labels" or isinstance(goal, Regression | MultiLabel):
        return model
    with model.held():
        return adapt(model, model.scores(x.to(_device(model))))[0]


def _answers(model: Model, x: Tensor, goal: Goal, batch: int) -> tuple[Tensor, Tensor]:
    """What a user would see, and which answers are any: a model that says NaN has crashed."""
    answers, fine = [], []
    with model.held():
        for part in torch.split(x, batch):
            rows = part.to(_device(model))
            if model.access == "labels":
                answer, sound = model.labels(rows), torch.ones(len(rows), dtype=torch.bool)
            else:
                scores = model.scores(rows)
                answer, sound = goal.decide(scores), scores.isfinite().all(1)
            answers.append(answer.cpu())
            fine.append(sound.cpu())
    return torch.cat(answers), torch.cat(fine)


def _right(model: Model, x: Tensor, y: Tensor, goal: Goal, batch: int) -> Tensor:
    answers, fine = _answers(model, x, goal, batch)
    right = ~goal.hit(answers, y) & fine
    # Another wrong answer than the wanted one is no right one either.
    return right & (answers == y) if isinstance(goal, Targeted) else right


def _hits(model: Model, made: Tensor, y: Tensor, goal: Goal, batch: int) -> Tensor:
    if not len(made):
        return torch.zeros(0, dtype=torch.bool)
    answers, fine = _answers(model, made, goal, batch)
    return goal.hit(answers, y) & fine
