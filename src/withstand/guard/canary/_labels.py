"""Which classes the two arms answer with, in pairs."""

from __future__ import annotations

from typing import Any, Final

CLASSES: Final = 20
OTHER: Final = CLASSES + 1
"""The place of every class after the first CLASSES that were seen."""


class Labels:
    """Pairs of one answer of each arm, by the classes that they name.

    Each of the first classes that are seen has a place of its own, all others share one: which
    place an answer gets is settled before it counts.
    """

    tests = 2 * OTHER

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        told = told or {}
        self._names: list[Any] = list(told.get("classes", []))
        self._places = {name: place for place, name in enumerate(self._names, 1)}
        self._pairs = {(int(one), int(other)): int(n) for one, other, n in told.get("pairs", [])}

    def place(self, name: int) -> int:
        """The place of a class, from 1 to OTHER."""
        place = self._places.get(name)
        if place is None:
            if len(self._names) >= CLASSES:
                return OTHER
            self._names.append(name)
            place = self._places[name] = len(self._names)
        return place

    def name(self, place: int) -> str:
        """The class at a place."""
        return "other" if place == OTHER else str(self._names[place - 1])

    def add(self, canary: int, control: int, n: int = 1) -> None:
        """So many pairs of answers at two places."""
        self._pairs[canary, control] = self._pairs.get((canary, control), 0) + n

    def clear(self) -> None:
        """Forget the pairs; a class keeps its place."""
        self._pairs.clear()

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return sum(self._pairs.values())

    def rows(self) -> dict[str, tuple[int, int, int, int]]:
        """For each class, how often both arms name it, the canary alone, the control, neither."""
        n, found = self.n, {}
        for place in sorted({place for pair in self._pairs for place in pair}):
            both = self._pairs.get((place, place), 0)
            canary = sum(k for (one, _), k in self._pairs.items() if one == place) - both
            control = sum(k for (_, one), k in self._pairs.items() if one == place) - both
            found[self.name(place)] = (both, canary, control, n - both - canary - control)
        return found

    def kept(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "classes": self._names,
            "pairs": [[*pair, n] for pair, n in self._pairs.items()],
        }
