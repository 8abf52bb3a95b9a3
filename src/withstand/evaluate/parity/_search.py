"""Which step, or which two, explain the difference between two pipelines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from ._compare import Comparison
from ._route import Route
from ._suspect import Suspect

_SCREENED = 64
_SCREENED_PAIRS = 24
_CONFIRMED = 8
_STARTS = 6

Known = Callable[[Comparison, Route], list[Suspect]]
Chosen = tuple[Suspect, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One suspect or two, and how much of the difference is left once the reference has them.

    residual: in the unit of the comparison; left: as a share of the difference before.
    """

    suspects: Chosen
    residual: float
    left: float

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(suspect.step for suspect in self.suspects)

    @property
    def change(self) -> str:
        """What the served pipeline would be doing."""
        return "; and ".join(suspect.change for suspect in self.suspects)

    @property
    def fix(self) -> str:
        """How to mend it."""
        return "; and ".join(dict.fromkeys(suspect.fix for suspect in self.suspects))


def explain(seen: Comparison, route: Route, known: Known, enough: float) -> list[Explanation]:
    """Explanations, the best first; pairs are tried where no single step leaves `enough` or less.

    known: the suspects that there are for a route.
    """
    search = _Search(seen, route, known)
    found = search.single()
    if found and found[0].left > enough:
        # A second step that mends little is chance, or noise that it imitates.
        pairs = [pair for pair in search.pairs(found) if pair.left <= 0.5 * found[0].left]
        found = sorted([*found, *pairs], key=lambda each: each.left)
    return found


class _Search:
    """Suspects on the rows where the difference is seen best, then the best of them on all rows."""

    def __init__(self, seen: Comparison, route: Route, known: Known) -> None:
        self.seen, self.route, self.known = seen, route, known
        self.gaps = seen.gaps(route)

    def single(self) -> list[Explanation]:
        """The best of every step."""
        tried = [(suspect,) for suspect in self.known(self.seen, self.route)]
        return self._confirmed(self._screened(tried, _SCREENED))

    def pairs(self, found: Sequence[Explanation]) -> list[Explanation]:
        """The best of every pair of steps, one of which is among those found."""
        tried: list[Chosen] = []
        for first in found[:_STARTS]:
            altered = _altered(first.suspects, self.route)
            tried += [
                (*first.suspects, second)
                for second in self.known(self.seen, altered)
                if second.step not in first.steps
            ]
        best = self._confirmed(self._screened(tried, _SCREENED_PAIRS))
        # What was best alone need not be the best of its step beside another.
        others = [(other,) for other in self.known(self.seen, self.route)]
        refined = [
            pair
            for each in best[:1]
            for (other,) in others
            for own, mate in (each.suspects, each.suspects[::-1])
            if other.step == own.step
            for pair in ((other, mate), (mate, other))
        ]
        again = self._confirmed(self._screened(refined, _SCREENED))
        return sorted([*again, *best[1:]], key=lambda each: each.left) if again else best

    def _screened(self, tried: Sequence[Chosen], most: int) -> list[Chosen]:
        """The best of every set of steps, in order, judged by at most so many rows."""
        rows = _telling(self.gaps, most)
        few, before = self.seen.take(rows), self.seen.total(self.gaps[rows])
        judged = [(self._residual(few, each), each) for each in tried]
        # Sorting keeps the order of equals, in which the likelier suspect comes first.
        judged.sort(key=lambda entry: (round(entry[0][0] / before, 5), entry[0][1]))
        best: dict[frozenset[str], Chosen] = {}
        for (residual, _), each in judged:
            if isfinite(residual):
                best.setdefault(frozenset(suspect.step for suspect in each), each)
        return list(best.values())

    def _confirmed(self, chosen: Sequence[Chosen]) -> list[Explanation]:
        """The first of the chosen, judged by all rows."""
        before, found = self.seen.total(self.gaps), []
        for suspects in chosen[:_CONFIRMED]:
            residual, finer = self._residual(self.seen, suspects)
            left = round(residual / before, 5)
            if isfinite(residual):
                explanation = Explanation(suspects=suspects, residual=residual, left=left)
                found.append((left, finer, explanation))
        return [entry[2] for entry in sorted(found, key=lambda entry: entry[:2])]

    def _residual(self, seen: Comparison, suspects: Chosen) -> tuple[float, float]:
        """What is left of the difference, infinite where the route cannot be altered so."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                residual = seen.residual(_altered(suspects, self.route))
        # A user's steps may raise anything on an input that they were not made for.
        except Exception:
            return inf, inf
        return residual if isfinite(sum(residual)) else (inf, inf)


def _altered(suspects: Chosen, route: Route) -> Route:
    for suspect in suspects:
        route = suspect.alter(route)
    return route


def _telling(gaps: Tensor, most: int) -> Tensor:
    """Rows (most,): half of them have the largest gaps, the others are spread evenly over all."""
    if len(gaps) <= most:
        return torch.arange(len(gaps))
    largest = gaps.argsort(descending=True, stable=True)[: most // 2]
    spread = torch.linspace(0, len(gaps) - 1, most // 2).long()
    return torch.cat((largest, spread)).sort().values
