"""Adversarial augmentation: fit, attack what was fitted, add what was found, fit again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from .._errors import ConfigError, DataError, ModelError
from ..attacks import Attack, Status, TableSearch, run
from ..data import Dataset
from ..models import Model
from ..threat import Targeted, Threat
from ..threat.tabular import Capability

Array = NDArray[Any]
M = TypeVar("M", bound=Model)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: rows that were right when attacked, those that the attack fooled, and the rows of
    the next fit."""

    attacked: int
    fooled: int
    rows: int

    @property
    def fooling_rate(self) -> float:
        """Share of the right rows that were fooled."""
        return self.fooled / self.attacked if self.attacked else 0.0


@dataclass(frozen=True, kw_only=True)
class Augmented(Generic[M]):
    """A model fitted to rows and to what fooled those before it.

    x (N, F), y (N,): what it was fitted to; the first rows are those of the data. rounds: what the
    attack found of each model but the last, on training rows: a trend, and no result.
    """

    model: M
    x: Array
    y: Array
    rounds: tuple[Round, ...]


def augment(
    fit: Callable[[Array, Array], M],
    data: Dataset,
    threat: Threat,
    *,
    rounds: int = 3,
    attack: Attack | None = None,
    limit: int = 2000,
    seed: int = 0,
) -> Augmented[M]:
    """Fit to data and to the rows that fool each model, under their true labels (Kantchelian et al.
    2016, section 5, with a search in place of the exact attack).

    fit: gives a model of rows (N, F) float32 and classes (N,). For anything that can be fitted,
    trees above all; rows of the target's class are not attacked. attack: TableSearch of 20
    generations if not given. limit: rows attacked in a round, drawn anew in each. Stops early where
    nothing is fooled any more. Every row that is added is one that the attacker can make. Costs
    rounds + 1 fits, and the attacks. Raises DataError, ModelError or ThreatError.
    """
    if rounds < 1 or limit < 1:
        raise ConfigError(f"rounds is {rounds} and limit {limit}; give at least 1")
    if data.y.ndim != 1 or data.y.dtype.kind not in "iu":
        raise DataError(f"y holds {data.y.dtype} of shape {data.y.shape}; give one class a row")
    attack = attack or TableSearch(generations=20, children=16)
    goal = threat.goal
    at_risk = np.flatnonzero(data.y != goal.target if isinstance(goal, Targeted) else data.y >= 0)
    if not len(at_risk):
        raise DataError("no row is of a class that can be attacked; give some of them")
    for part in threat.region:
        if isinstance(part, Capability):
            part.check(data.x[at_risk])
    x, y = data.x, data.y
    model, told = _fitted(fit, x, y), []
    for number in range(rounds):
        draw = np.random.default_rng((seed, number))
        rows = np.sort(draw.permutation(at_risk)[:limit])
        found = run(
            attack,
            model,
            torch.from_numpy(data.x[rows]),
            torch.from_numpy(data.y[rows]),
            threat,
            seed=seed + number,
            batch_size=256,
        )
        fooled = np.array([one is Status.FOOLED for one in found.status])
        right = sum(one is not Status.ALREADY_WRONG for one in found.status)
        x = np.concatenate((x, found.x_adv.numpy()[fooled]))
        y = np.concatenate((y, data.y[rows[fooled]]))
        told.append(Round(attacked=right, fooled=int(fooled.sum()), rows=len(x)))
        if not fooled.any():
            break
        model = _fitted(fit, x, y)
    return Augmented(model=model, x=x, y=y, rounds=tuple(told))


def _fitted(fit: Callable[[Array, Array], M], x: Array, y: Array) -> M:
    model = fit(x, y)
    if not isinstance(model, Model):
        raise ModelError(
            f"fit gave a {type(model).__name__}; give a model, such as trees_model(estimator, "
            "domain=table.domain)"
        )
    return model
