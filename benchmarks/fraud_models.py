"""Models of fraud, undefended and defended, that flag one benign transaction in a hundred."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from withstand import harden
from withstand.data import Dataset
from withstand.models import Model, Thresholded, TorchModel, trees_model
from withstand.threat import Targeted, Threat
from withstand.threat.tabular import Table

Array = np.ndarray[Any, Any]
BUDGETS = (10.0, 30.0, 100.0)
FLAGGED = 0.01
ROWS = 600
# Defences of networks to choose from, and whether they look at numbers of frauds, not at shares.
DEFENCES = {"trained": False, "trained, without shares": True}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Transactions in three parts, and the columns that each model leaves out."""

    table: Table
    parts: dict[str, Dataset]
    bank: tuple[str, ...]
    hardened: tuple[str, ...]
    rising: tuple[str, ...]

    @property
    def known(self) -> Case:
        """Without the part to test: what models are fitted to and defences chosen by."""
        return replace(self, parts={name: self.parts[name] for name in ("train", "validation")})

    def attacked(self, part: str) -> Dataset:
        """The frauds of a part, at most ROWS of them."""
        whole = self.parts[part]
        frauds = np.flatnonzero(whole.y == 1)
        return whole.take(
            frauds[np.linspace(0, len(frauds) - 1, min(ROWS, len(frauds))).astype(int)]
        )

    def threat(self, cost: float, access: Any) -> Threat:
        """A thief who spends this much on a transaction."""
        region = self.table.limited(most_changed=None, most_cost=cost).capability
        return Threat(region=region, goal=Targeted(0), access=access)


def _without(case: Case, x: Array, out: tuple[str, ...]) -> Array:
    held = x.copy()
    held[:, [case.table.columns.index(name) for name in out]] = 0
    return held


def _trees(case: Case, x: Array, y: Array, out: tuple[str, ...], **told: Any) -> Model:
    from xgboost import XGBClassifier

    trees = XGBClassifier(n_estimators=100, max_depth=5, learning_rate=0.1, n_jobs=1, **told)
    trees.fit(_without(case, x, out), y)
    return _at_rate(case, trees_model(trees, domain=case.table.domain))


def bank(case: Case, *, seed: int) -> Model:
    train = case.parts["train"]
    return _trees(case, train.x, train.y, case.bank, random_state=seed)


def hardened(case: Case, *, seed: int) -> Model:
    free = harden.directions(case.table.capability, leave=["amount"])
    signs = tuple(
        one or int(name in case.rising) for one, name in zip(free, case.table.columns, strict=True)
    )

    def fit(x: Array, y: Array) -> Model:
        return _trees(case, x, y, case.hardened, monotone_constraints=signs, random_state=seed)

    threat = case.threat(BUDGETS[-1], "scores")
    return harden.augment(fit, case.parts["train"], threat, rounds=3, seed=seed).model


class _Net(nn.Module):
    """Money and numbers by their logarithm; what is left out is 0."""

    def __init__(self, plain: list[bool], left_out: list[bool]) -> None:
        super().__init__()
        self.register_buffer("plain", torch.tensor(plain))
        self.register_buffer("left_out", torch.tensor(left_out))
        sizes = [len(plain), 64, 64, 2]
        layers: list[nn.Module] = [nn.BatchNorm1d(len(plain))]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.sign() * x.abs().log1p()
        seen = torch.where(self.get_buffer("plain"), x, squeezed)
        out: Tensor = self.layers(seen.masked_fill(self.get_buffer("left_out"), 0.0))
        return out


def standard(case: Case, *, seed: int) -> Model:
    return _network(case, harden.Standard(), (), seed)


def trained(case: Case, *, defence: str, seed: int) -> Model:
    recipe = harden.Tabular(threat=case.threat(BUDGETS[-1], "gradients"), steps=5)
    return _network(case, recipe, case.hardened if DEFENCES[defence] else (), seed)


def _network(case: Case, recipe: harden.Recipe, left_out: tuple[str, ...], seed: int) -> Model:
    train, columns = case.parts["train"], case.table.columns
    frauds = np.flatnonzero(train.y == 1)
    benign = np.random.default_rng(seed).permutation(np.flatnonzero(train.y == 0))
    some = train.take(np.sort(np.concatenate((frauds, benign[: 10 * len(frauds)]))))
    plain = [name.startswith("risk") or name in ("hour", "night", "weekend") for name in columns]
    torch.manual_seed(seed)
    net = TorchModel(_Net(plain, [name in left_out for name in columns]), domain=case.table.domain)
    made = harden.harden(net, some, recipe, epochs=15, batch_size=512, seed=seed)
    return _at_rate(case, made.model)


def _at_rate(case: Case, model: Model) -> Model:
    """With the threshold that flags 1 % of the benign validation rows."""
    part = case.parts["validation"]
    margin = _margin(model, part.x[part.y == 0])
    found = float(np.quantile(margin, 1 - FLAGGED))
    return Thresholded(model, float(1 / (1 + np.exp(-found))))


def area(model: Model, part: Dataset) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(part.y, _margin(model, part.x)))


def _margin(model: Model, x: Array) -> Array:
    scores = model.scores(torch.from_numpy(x)).double()
    return np.asarray((scores[:, 1] - scores[:, 0]).numpy())
