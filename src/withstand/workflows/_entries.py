"""From a configuration to what is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import ConfigError, ModelError, WithstandError, listed
from ..config import CompareConfig, Config, DefenceConfig, ModelConfig
from ..data import Dataset, load
from ..evaluate import classes_of, cost_beside, in_order, setup_of
from ..models import Ensemble, Model, defences_of, describe, load_model, with_defences
from ..threat import Threat
from ._compare import Entry, unique


class CompareSetup(NamedTuple):
    """Entries by name, and the data and the threat that all of them meet."""

    entries: dict[str, Entry]
    data: Dataset
    threat: Threat


def compare_setup(config: Config, root: str | Path = ".") -> CompareSetup:
    """The file's model first, then with its own defences, then the entries under `compare:`.

    Relative paths count from the folder `root`. Raises ConfigError where there is nothing to put
    beside the model, and ModelError for what cannot be loaded, or has other classes than the model.
    """
    if not config.compare and not config.defences:
        raise ConfigError(
            "compare has 0 entries; add some to withstand.yaml, e.g. compare: "
            "[{name: squeezed, defences: [{name: bit_depth}]}]"
        )
    given = load(config.data, root)
    # What is compared is put in front of the model here, and surrogates have no part in it.
    bare = config.model_copy(update={"defences": [], "surrogates": []})
    model, data, threat, _ = setup_of(bare, given, root)
    loading = _Loading(Path(root), given, data)
    first = Entry(model=model, training_cost=_hardening([config.model], [model], loading.root))
    carried = " + ".join(defence.name for defence in defences_of(model))
    found = [("hardened" if first.training_cost else carried or "undefended", first)]
    if config.defences:
        guarded = with_defences(model, config.defences)
        found.append((_title(config.defences), replace(first, model=guarded)))
    for place, spec in enumerate(config.compare):
        try:
            found.append((spec.name or _called(spec), _entry(spec, first, loading)))
        except WithstandError as error:
            raise ModelError(f"compare[{place}]: {error}") from None
    names = unique([name for name, _ in found])
    entries = {name: entry for name, (_, entry) in zip(names, found, strict=True)}
    return CompareSetup(entries, data, threat)


class _Loading(NamedTuple):
    """The root of relative paths, and the data as they were read and with labels by place."""

    root: Path
    given: Dataset
    data: Dataset

    def model(self, spec: ModelConfig) -> Model:
        """An entry's own model; raises ModelError for one to whom the labels mean other classes."""
        model = load_model(spec, self.root, self.data.table, columns=self.data.features)
        known = classes_of(model)
        if len(known) and not np.array_equal(in_order(self.given, model).y, self.data.y):
            raise ModelError(
                f"its classes are {listed([str(one) for one in known.tolist()])}, which are not "
                "those that the labels mean to the file's model; fit both to the same classes"
            )
        return model


def _entry(spec: CompareConfig, first: Entry, loading: _Loading) -> Entry:
    # What stands in front of the file's model needs no training.
    own, cost = first.model, first.training_cost
    asked = [spec.model] if spec.model is not None else spec.members
    if asked:
        models = [loading.model(one) for one in asked]
        own = Ensemble(models, combine=spec.combine) if spec.members else models[0]
        cost = _hardening(asked, models, loading.root)
    cost = cost if spec.training_cost is None else spec.training_cost
    return Entry(model=with_defences(own, spec.defences), training_cost=cost)


def _hardening(specs: list[ModelConfig], models: list[Model], root: Path) -> float | None:
    """The cost factors of models in all, by what `withstand harden` wrote beside their weights.

    None where one of them is not known.
    """
    total = 0.0
    for spec, model in zip(specs, models, strict=True):
        cost = spec.weights and cost_beside(root / spec.weights, describe(model))
        if not cost or not cost.factor:
            return None
        total += cost.factor
    return total


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
