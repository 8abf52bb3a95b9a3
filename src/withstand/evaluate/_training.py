"""What the training of a model cost, beside what it came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ._report import TrainingCost


def training_cost(told: Mapping[str, Any]) -> TrainingCost:
    """The cost in a harden.json, of which the report keeps a part."""
    return TrainingCost(**{field.name: told[field.name] for field in fields(TrainingCost)})


def cost_beside(weights: Path, model: Mapping[str, Any]) -> TrainingCost | None:
    """The cost in the harden.json beside a file of weights, of a model as `describe` tells it.

    None where there is none, or where it tells of other weights than the model's.
    """
    while isinstance(model.get("model"), dict):
        model = model["model"]
    try:
        told = json.loads(weights.with_name("harden.json").read_text(encoding="utf-8"))
        if told["provenance"]["after"]["digest"] != model.get("digest"):
            return None
        return training_cost(told["cost"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
