"""How dense benign inputs are where this one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import Needs, State
from ._features import OnFeatures, enough
from ._near import check_references, spread, squared


@dataclass(frozen=True, kw_only=True)
class KernelDensity(OnFeatures):
    """-log of a Gaussian kernel density estimate (Feinman et al. 2017, section 3).

    per_class: among the benign inputs of the class that the model answers, as the paper has it.
    bandwidth: in units of the features, None for the rule of Scott (1992), their pooled standard
    deviation times n^(-1 / (F + 4)), within classes if per_class. references: at most so many
    benign inputs, evenly spread. No extra pass.
    """

    per_class: bool = True
    bandwidth: float | None = None
    references: int = 10_000
    reference: ClassVar[str] = "Feinman et al. 2017; Scott 1992"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise ConfigError(
                f"bandwidth is {self.bandwidth:g}; give more than 0, or null for the rule"
            )
        check_references(self.references)

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return "scores" if self.per_class and self.of == "input" else self.of

    def learned(self, features: Tensor, y: Tensor) -> State:
        enough(len(features), 10, "a density")
        rows = spread(len(features), self.references).to(features.device)
        kept, centre = features[rows], features.mean(0)
        classes = y[rows] if self.per_class else torch.zeros_like(y[rows])
        known = torch.unique(classes)
        means = torch.stack([kept[classes == c].mean(0) for c in known])
        place = torch.searchsorted(known, classes)
        spreads = (kept - means[place]).square().mean().sqrt()
        n = len(kept) / len(means)
        rule = spreads.clamp_min(1e-6) * n ** (-1 / (kept.shape[1] + 4))
        width = rule if self.bandwidth is None else torch.full_like(rule, self.bandwidth)
        placed = (kept - centre) / width
        return {
            "centre": centre,
            "width": width,
            "classes": classes,
            "references": placed,
            "lengths": placed.square().sum(1),
            "counts": torch.bincount(classes).float(),
        }

    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        placed = (features - state["centre"]) / state["width"]
        kernels = -squared(placed, state["references"], state["lengths"]) / 2
        counts = state["counts"]
        n = torch.where(y < len(counts), counts[y.clamp_max(len(counts) - 1)], 0)
        if not self.per_class:
            n = torch.zeros_like(n)
        # A class without benign inputs has no density of its own: that of all stands for it.
        own = (state["classes"] == y[:, None]) | (n == 0)[:, None]
        n = torch.where(n == 0, float(kernels.shape[1]), n)
        return n.log() - kernels.masked_fill(~own, -torch.inf).logsumexp(1)
