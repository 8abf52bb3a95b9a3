"""How far the nearest benign inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import normalize

from ..._errors import ConfigError
from .._contract import State
from ._features import OnFeatures, enough, part_of
from ._near import check_references, nearest, spread


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(OnFeatures):
    """Distance to the k-th nearest of benign references (Ramaswamy et al. 2000; Sun et al. 2022).

    metric: euclidean, or cosine, which is the distance of the features at length 1. references: at
    most so many benign inputs, evenly spread, 50,000 at most; the cost grows with them. Weak
    against strong attacks, yet it names the benign inputs that an example resembles: `neighbours`.
    No extra pass.
    """

    k: int = 10
    metric: Literal["cosine", "euclidean"] = "cosine"
    references: int = 10_000
    reference: ClassVar[str] = "Ramaswamy et al. 2000; Sun et al. 2022"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; give at least 1")
        if self.metric not in ("cosine", "euclidean"):
            raise ConfigError(f"metric is {self.metric!r}; it is cosine or euclidean")
        check_references(self.references)

    def learned(self, features: Tensor, y: Tensor) -> State:
        enough(len(features), self.k + 1, f"distances to the nearest {self.k}")
        # Centred, since rounding grows with the distance from the origin.
        centre = self._scaled(features).mean(0)
        rows = spread(len(features), self.references).to(features.device)
        part = {"centre": centre, "rows": rows}
        placed = self._placed(part, features[rows])
        return part | {"references": placed, "lengths": placed.square().sum(1)}

    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        return self._nearest(state, features)[0][:, -1]

    def neighbours(self, state: State, features: Tensor, *, view: int = 0) -> Tensor:
        """The k nearest benign inputs (B, k) to features (B, F), as places in what was fitted.

        view: which of the layers, in their order.
        """
        mine = part_of(state, view)
        return mine["rows"][self._nearest(mine, features)[1]]

    def _nearest(self, state: State, features: Tensor) -> tuple[Tensor, Tensor]:
        placed = self._placed(state, features)
        return nearest(placed, state["references"], state["lengths"], self.k)

    def _placed(self, state: State, features: Tensor) -> Tensor:
        return self._scaled(features) - state["centre"]

    def _scaled(self, features: Tensor) -> Tensor:
        return normalize(features, dim=1) if self.metric == "cosine" else features
