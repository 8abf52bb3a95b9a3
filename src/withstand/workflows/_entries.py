"""From a configuration to what is compared."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

from .._errors import ConfigError, ModelError, WithstandError
from ..config import CompareConfig, Config, DefenceConfig, ModelConfig
from ..models import Ensemble, Model, load_model, with_defences
from ._compare import Entry, unique


def entries_from(config: Config, root: str | Path = ".") -> dict[str, Entry]:
    """The file's model first, then with its own defences, then the entries under `compare:`.

    Relative paths count from the folder `root`. Raises ConfigError where there is nothing to put
    beside the model, and ModelError for what cannot be loaded.
    """
    if not config.compare and not config.defences:
        raise ConfigError(
            "compare has 0 entries; add some to withstand.yaml, e.g. compare: "
            "[{name: squeezed, defences: [{name: bit_depth}]}]"
        )
    model = load_model(config.model, root)
    found = [("undefended", Entry(model=model, training_cost=1.0))]
    if config.defences:
        guarded = with_defences(model, config.defences)
        found.append((_title(config.defences), Entry(model=guarded, training_cost=1.0)))
    for place, spec in enumerate(config.compare):
        try:
            found.append((spec.name or _called(spec), _entry(spec, model, root)))
        except WithstandError as error:
            raise ModelError(f"compare[{place}]: {error}") from None
    names = unique([name for name, _ in found])
    return {name: entry for name, (_, entry) in zip(names, found, strict=True)}


def _entry(spec: CompareConfig, model: Model, root: str | Path) -> Entry:
    own = load_model(spec.model, root) if spec.model is not None else model
    if spec.members:
        members = [load_model(member, root) for member in spec.members]
        own = Ensemble(members, combine=spec.combine)
    # What stands in front of the model needs no training.
    known = 1.0 if spec.model is None and not spec.members else _hardening(spec.model, root)
    cost = known if spec.training_cost is None else spec.training_cost
    return Entry(model=with_defences(own, spec.defences), training_cost=cost)


def _hardening(spec: ModelConfig | None, root: str | Path) -> float | None:
    """The cost factor in the harden.json beside a model's weights, None where there is none."""
    if spec is None or spec.weights is None:
        return None
    try:
        told = json.loads((Path(root) / spec.weights).with_name("harden.json").read_text())
        factor = float(told["cost"]["factor"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return factor if isfinite(factor) else None


def _called(spec: CompareConfig) -> str:
    parts = [f"{spec.combine} of {len(spec.members)}"] if spec.members else []
    if spec.model is not None:
        parts.append(str(spec.model.weights or spec.model.factory or spec.model.url))
    return ", ".join([*parts, *([_title(spec.defences)] if spec.defences else [])])


def _title(defences: list[DefenceConfig]) -> str:
    return " + ".join(
        " ".join([spec.name, *(str(value) for value in spec.settings.values())])
        for spec in defences
    )
