"""Whether models that answer together fail on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..attacks import Attack
from ..data import Dataset
from ..models import Model, adapt
from ..stats import Interval, bootstrap, wilson
from ..threat import Goal, Threat
from ._transfer import TransferMatrix, transfer_matrix

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How alike models are, by pairs of names; the more alike, the less their vote is worth.

    cosine: mean cosine of the gradients of the goal's margin (Kariyappa and Qureshi 2019), of
    inputs where both have one; pairs without are left out. disagreement: share of inputs answered
    otherwise (Kuncheva and Whitaker 2003). transfer: who fools whom.
    """

    cosine: dict[Pair, Interval]
    disagreement: dict[Pair, Interval]
    transfer: TransferMatrix

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a pair is told as two names."""
        return {
            **{
                key: [{"pair": list(pair), **each.to_dict()} for pair, each in found.items()]
                for key, found in (("cosine", self.cosine), ("disagreement", self.disagreement))
            },
            "transfer": self.transfer.to_dict(),
        }


def diversity(
    models: Mapping[str, Model],
    data: Dataset,
    threat: Threat,
    *,
    attack: Attack | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Diversity:
    """Compare models on the same inputs; 1 forward and 1 backward of each, and a transfer matrix.

    Raises what `transfer_matrix` raises.
    """
    transfer = transfer_matrix(
        dict(models), data, threat, attack=attack, seed=seed, batch_size=batch_size
    )
    labels, slopes = {}, {}
    for name, model in models.items():
        labels[name], slope = _looked(model, data, threat.goal, batch_size)
        if slope is not None:
            slopes[name] = slope
    cosine = {}
    for one, other in combinations(slopes, 2):
        both = (slopes[one] != 0).any(1) & (slopes[other] != 0).any(1)
        alike = cosine_similarity(slopes[one][both], slopes[other][both])
        if len(alike):
            cosine[one, other] = bootstrap(alike.numpy(), seed=seed)
    return Diversity(
        cosine=cosine,
        disagreement={
            (one, other): wilson(
                int((labels[one] != labels[other]).reshape(len(data.x), -1).any(1).sum()),
                len(data.x),
            )
            for one, other in combinations(labels, 2)
        },
        transfer=transfer,
    )


def _looked(model: Model, data: Dataset, goal: Goal, batch: int) -> tuple[Tensor, Tensor | None]:
    """Labels of all inputs, and the margins' gradients (N, F) where the model gives some."""
    device = getattr(model, "device", torch.device("cpu"))
    x, y = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (data.x, data.y))
    parts = list(zip(torch.split(x, batch), torch.split(y, batch), strict=True))
    with model.held():
        labels = torch.cat([model.labels(part).cpu() for part, _ in parts])
        if model.access != "gradients":
            return labels, None
        ready = adapt(model, model.scores(parts[0][0]))[0]
        found = [ready.gradient(part, partial(_margin, goal, wanted)) for part, wanted in parts]
    return labels, torch.cat([seen.gradient.flatten(1).double().cpu() for seen in found])


def _margin(goal: Goal, y: Tensor, scores: Tensor) -> Tensor:
    return goal.margin(scores, y)
