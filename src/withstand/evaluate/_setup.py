"""From a configuration to what is evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelError, WithstandError
from ..config import Config, ThreatConfig
from ..data import Dataset
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
    model = with_defences(load_model(config.model, root), config.defences)
    threat = threat_from(config.threat)
    if config.model.access is not None:
        threat = replace(threat, access=weakest(threat.access, config.model.access))
    return Setup(model, data, threat, _surrogates(config, root))


def _surrogates(config: Config, root: str | Path) -> dict[str, Model]:
    """By the file or factory that each comes from."""
    names = numbered([str(spec.weights or spec.factory or spec.url) for spec in config.surrogates])
    found = {}
    for place, (name, spec) in enumerate(zip(names, config.surrogates, strict=True)):
        try:
            found[name] = load_model(spec, root)
        except WithstandError as error:
            raise ModelError(f"surrogates[{place}]: {error}") from None
    return found


def threat_from(spec: ThreatConfig) -> Threat:
    """The threat of a configuration's threat section."""
    region: Region = _BALLS[spec.region.norm](spec.region.eps)
    if spec.region.frozen:
        region = region & Frozen(tuple(spec.region.frozen))
    return Threat(region=region, goal=_goal(spec), access=spec.access, queries=spec.queries)


def _goal(spec: ThreatConfig) -> Goal:
    if spec.goal == "targeted" and spec.target is not None:
        return Targeted(spec.target)
    if spec.goal == "regression" and spec.tolerance is not None:
        return Regression(spec.tolerance)
    return MultiLabel() if spec.goal == "multilabel" else Untargeted()
