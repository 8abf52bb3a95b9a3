"""What an attacker changes as one: a feature, or the columns of a choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import listed
from ...threat.tabular import Capability, Feature
from ._business import Kind

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Columns that count as one change; fixed: the cost of any change beside the columns' own."""

    name: str
    kind: Kind
    places: tuple[int, ...]
    columns: tuple[Feature, ...]
    fixed: float = 0.0

    @property
    def changeable(self) -> bool:
        """Whether the attacker can change it at all."""
        return any(one.change != "none" for one in self.columns)

    @property
    def priced(self) -> bool:
        """Whether changing it costs anything."""
        return self.fixed > 0 or any(one.cost > 0 or one.fixed > 0 for one in self.columns)

    def moved(self, x: Array, x_adv: Array) -> Array:
        """Which rows of x_adv (B, F), made of x (B, F), it changed in."""
        here = list(self.places)
        return np.asarray((x[:, here] != x_adv[:, here]).any(1))

    def spent(self, x: Array, x_adv: Array) -> Array:
        """What its changes cost (B,)."""
        total = self.fixed * self.moved(x, x_adv)
        for place, one in zip(self.places, self.columns, strict=True):
            total = total + one.spent(x[:, place], x_adv[:, place])
        return np.asarray(total)


def parts_of(capability: Capability) -> list[Part]:
    """Everything that an attacker may change as one, in the order of the columns."""
    index, features = capability.index, capability.features
    derived = {one.name for one in capability.derived}
    chosen = {name for one in capability.choices for name in one.columns}
    found = [
        Part(name=one.name, kind=_kind(one), places=(index[one.name],), columns=(one,))
        for one in features
        if one.name not in derived and one.name not in chosen
    ]
    for group in capability.choices:
        places = tuple(index[name] for name in group.columns)
        found.append(
            Part(
                name=listed(group.columns, 3),
                kind="choice",
                places=places,
                columns=tuple(features[place] for place in places),
                fixed=group.cost,
            )
        )
    return sorted(found, key=lambda part: min(part.places))


def _kind(feature: Feature) -> Kind:
    if feature.labels is not None:
        return "category"
    return "date" if feature.date else "number"
