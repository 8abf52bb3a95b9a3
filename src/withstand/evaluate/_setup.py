"""From a configuration to what is evaluated."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelError, WithstandError
from ..config import Config, ThreatConfig
from ..data import Dataset, load_table
from ..data import load as load_data
from ..models import Model, load_model, with_defences
from ..threat import (
    L0,
    L1,
    L2,
    Frozen,
    Goal,
    Linf,
    MultiLabel,
    Region,
    Regression,
    Targeted,
    Threat,
    Untargeted,
)
from ..threat.tabular import Table
from ._cascade import weakest
from ._surrogates import numbered

_BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


class Setup(NamedTuple):
    """A model, data, a threat, and the attacker's surrogates by name, ready to evaluate."""

    model: Model
    data: Dataset
    threat: Threat
    surrogates: dict[str, Model]


def from_config(config: Config, root: str | Path = ".") -> Setup:
    """What a configuration describes; relative paths count from the folder `root`."""
    data = load_data(config.data, root)
    model = with_defences(load_model(config.model, root, data.table), config.defences)
    threat = _threat(config.threat, data.table)
    if config.model.access is not None:
        threat = replace(threat, access=weakest(threat.access, config.model.access))
    return Setup(model, data, threat, _surrogates(config, root, data.table))


def _surrogates(config: Config, root: str | Path, table: Table | None) -> dict[str, Model]:
    """By the file or factory that each comes from."""
    names = numbered([str(spec.weights or spec.factory or spec.url) for spec in config.surrogates])
    found = {}
    for place, (name, spec) in enumerate(zip(names, config.surrogates, strict=True)):
        try:
            found[name] = load_model(spec, root, table)
        except WithstandError as error:
            raise ModelError(f"surrogates[{place}]: {error}") from None
    return found


def threat_from(config: Config, root: str | Path = ".") -> Threat:
    """The threat that a configuration describes; a relative path of a table counts from `root`."""
    table = config.data.table
    return _threat(config.threat, None if table is None else load_table(Path(root) / table))


def _threat(spec: ThreatConfig, table: Table | None) -> Threat:
    told = spec.region
    parts: list[Region] = []
    if told.norm is not None and told.eps is not None:
        parts.append(_BALLS[told.norm](told.eps))
    if table is not None:
        limited = table.limited(most_changed=told.most_changed, most_cost=told.most_cost)
        parts.append(limited.capability)
    if told.frozen:
        parts.append(Frozen(tuple(told.frozen)))
    region = reduce(and_, parts)
    return Threat(region=region, goal=_goal(spec), access=spec.access, queries=spec.queries)


def _goal(spec: ThreatConfig) -> Goal:
    if spec.goal == "targeted" and spec.target is not None:
        return Targeted(spec.target)
    if spec.goal == "regression" and spec.tolerance is not None:
        return Regression(spec.tolerance)
    return MultiLabel() if spec.goal == "multilabel" else Untargeted()
