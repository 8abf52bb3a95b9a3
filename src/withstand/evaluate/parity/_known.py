"""All suspects that there are for one reference and one kind of input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._codes import code_suspects
from ._compare import Comparison
from ._pictures import View, picture_suspects
from ._resize import resize_suspects
from ._route import Route, Step
from ._steps import class_order, own_steps, scaling, types
from ._suspect import Suspect
from ._tables import table_suspects


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The suspects of a route, the likelier ones first.

    view: how input is seen as pictures, if it is; own: the reference's own steps; features: names
    of a table's columns; more: suspects of the user's.
    """

    view: View | None
    own: tuple[Step, ...]
    features: Sequence[str] | None
    more: tuple[Suspect, ...]

    def __call__(self, seen: Comparison, route: Route) -> list[Suspect]:
        """Suspects for a route; those with a search of their own ask it at the inputs seen."""
        found = [*self.more, *scaling()]
        if self.view is not None:
            found += picture_suspects(self.view, seen.x, len(self.own))
            found += resize_suspects(self.view, seen.x, route)
        elif seen.x.ndim == 2:
            found += table_suspects(seen.x, self.features)
            found += code_suspects(seen, route, self.features)
        return [*found, *types(self.own), *own_steps(self.own), *class_order(seen, route)]
