"""Whether a row of a table keeps the rules that its file tells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._errors import DataError
from ...config import TableConfig
from ...data import table_of
from ...threat.tabular import Capability
from .._contract import Method, Modality, Needs, Observation, State
from ._features import enough

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TableRules(Method):
    """The rules of a table that a row breaks: one for each, and up to one more by how much.

    rules: a table's file as JSON (`TableConfig.model_dump_json`); with data.table, configurations
    fill it in. Of ranges and derived columns counts by how many standard deviations, of relations
    how far they are from holding; 0 is a row that breaks nothing. It catches who does not know the
    rules, and never an attacker whose examples keep them. Without rules the bounds of the benign
    rows are all that it knows. Model-free.
    """

    rules: str = ""
    needs: ClassVar[Needs] = "input"
    modalities: ClassVar[tuple[Modality, ...]] = ("tabular",)
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.rules:
            _read(self.rules)

    def fit(self, seen: Observation) -> State:
        x = seen.x.flatten(1).double()
        enough(len(x), 10, "a table's rules")
        if self.rules and len(_read(self.rules).features) != x.shape[1]:
            raise DataError(
                f"rows have {x.shape[1]} columns and the rules {len(_read(self.rules).features)}; "
                "give those of the same table"
            )
        scale = x.std(0)
        scale = torch.where(scale > 0, scale, x.abs().amax(0).clamp_min(1))
        return {"scale": scale, "lower": x.amin(0), "upper": x.amax(0)}

    def score(self, state: State, seen: Observation) -> Tensor:
        x = seen.x.detach().flatten(1)
        rows = x.double().cpu().numpy()
        scale = state["scale"].cpu().numpy()
        if self.rules:
            capability = _read(self.rules)
            found = _broken(capability, rows) + _excess(capability, rows, scale)
        else:
            far = _beyond(rows, state["lower"].cpu().numpy(), state["upper"].cpu().numpy()) / scale
            found = ((far > 0) + far / (1 + far)).sum(1)
        return torch.from_numpy(found).to(x)


@lru_cache(maxsize=16)
def _read(rules: str) -> Capability:
    return table_of(TableConfig.model_validate_json(rules)).capability


def _beyond(rows: Array, lower: Array, upper: Array) -> Array:
    return np.asarray(np.maximum(lower - rows, 0) + np.maximum(rows - upper, 0))


def _broken(capability: Capability, rows: Array) -> Array:
    """How many rules each row breaks (B,)."""
    count = np.zeros(len(rows))
    for _, broken in capability.broken(rows, rows):
        count += broken
    return count


def _excess(capability: Capability, rows: Array, scale: Array) -> Array:
    """By how much (B,), each rule less than 1."""
    made = {one.name for one in capability.derived}
    total = np.zeros(len(rows))
    for place, one in enumerate(capability.features):
        if one.name not in made:
            far = _beyond(rows[:, place], np.asarray(one.lower), np.asarray(one.upper))
            total += _share(far / scale[place])
    for item in capability.derived:
        place = capability.index[item.name]
        far = np.abs(rows[:, place] - item.value(rows, capability.index)) / scale[place]
        total += np.where(item.broken(rows, capability.index), _share(far), 0)
    for relation in capability.relations:
        total += _share(relation.excess(rows, capability.index))
    return total


def _share(far: Array) -> Array:
    """0 to 1 for 0 to infinity, and 1 for what is no number."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(far), far / (1 + far), 1.0)
