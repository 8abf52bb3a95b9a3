"""Which attacks a threat to rows of a table calls for: none that leaves what can be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._errors import ModelError
from ..attacks import CAPGD, Attack, Cuts, Donors, Examples, TableSearch, TableWalk
from ..certify.trees import forest_of
from ..models import Model
from ..threat import Access, Threat
from ..threat.tabular import Capability
from ._cascade import Spend

Others = tuple[NDArray[Any], NDArray[Any]]
# Of the data, spread over it: more of them take longer to look through than they find.
_DONORS = 2000


@dataclass(frozen=True, kw_only=True)
class Known:
    """What an attacker of a table has: rows of others, and the cuts of a model that he knows."""

    donors: Donors
    cuts: Cuts | None = None

    @classmethod
    def of(
        cls, model: Model, threat: Threat, x: Tensor, answer: Tensor, others: Others | None
    ) -> Known:
        """From the samples x (N, F) with the model's answers (N,), other rows, and the model."""
        labels = answer if answer.ndim == 1 else answer[:, 0]
        rows, names = x.cpu().numpy(), labels.cpu().numpy()
        if others is not None:
            rows, names = np.concatenate((rows, others[0])), np.concatenate((names, others[1]))
        spread = np.linspace(0, len(rows) - 1, min(_DONORS, len(rows))).round().astype(int)
        spread = np.unique(spread)
        donors = Donors(rows[spread], names[spread])
        # Whoever sees no more than scores does not know where the trees cut.
        cuts = _cuts(model, x) if threat.access == "gradients" else None
        return cls(donors=donors, cuts=cuts)


def _cuts(model: Model, x: Tensor) -> Cuts | None:
    try:
        return Cuts(forest_of(model, x[:1].cpu().numpy()).cuts)
    except ModelError:
        return None


def capability_of(threat: Threat) -> Capability | None:
    """What an attacker of a table can do; None where no table is attacked."""
    return next((part for part in threat.region if isinstance(part, Capability)), None)


def table_cascade(spend: Spend, access: Access, known: Known) -> list[Attack]:
    """The attacks on a model of tables, in order; none for an attacker who sees nothing of it.

    Norm attacks leave the grids and the relations of a table at their first step. The search begins
    with rows of others, and with labels alone they are all there is to begin with.
    """
    search = TableSearch(
        generations=spend.generations, restarts=spend.restarts, cuts=known.cuts, donors=known.donors
    )
    if access == "gradients":
        return [CAPGD(steps=spend.craft, restarts=spend.restarts + 1), search]
    if access == "scores":
        return [search]
    if access == "labels":
        return [TableWalk(rows=known.donors, rounds=spend.rounds, restarts=spend.restarts + 1)]
    return []


def table_again(spend: Spend, access: Access, known: Known) -> list[Attack]:
    """Fresh starts for a few that withstand: if these fall, the search was too short."""
    if access not in ("gradients", "scores"):
        return []
    return [TableSearch(generations=spend.generations, cuts=known.cuts, donors=known.donors)]


def cheaper(spend: Spend, x_adv: Tensor, keys: Tensor) -> TableWalk:
    """What makes examples (N, F) of samples with these keys cheaper and easier to read."""
    rows = Examples(x_adv.cpu().numpy(), keys.cpu().numpy())
    return TableWalk(rows=rows, rounds=spend.rounds)
