"""A search over rows of a table, by scores alone, that never asks about an impossible row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import project
from ._contract import Attack, Query, Seen
from ._noise import uniform
from ._problem import Problem
from ._repair import Repair

# A feature that changes goes to an end of its range, anywhere in it, nearby, or else back.
_END, _ANYWHERE, _NEARBY = 0.3, 0.6, 0.85
_NEAR = 0.2


class _State(NamedTuple):
    kept: Tensor  # the best rows (B, kept, F) so far
    margin: Tensor  # of each, (B, kept)
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class TableSearch(Attack):
    """A batched evolutionary search under constraints, for tables with a Capability.

    Each generation crosses the best rows so far and changes up to `most_moved` features of each
    child: to an end of its range, anywhere in it, a little up or down, or back to the clean value.
    Children are repaired (see `Repair`), and only those that the attacker can make are asked about.
    The setting is that of MOEVA (Simonetto et al. 2022); here each row has its own population, all
    of them in one call of the model, and one objective, since repairs keep the constraints. At most
    `children` forwards a generation.
    """

    generations: int = 60
    children: int = 24
    kept: int = 6
    most_moved: int = 6
    needs: ClassVar[Access] = "scores"
    norms: ClassVar = ("linf", "l2", "l1", "l0")

    def init(self, problem: Problem) -> _State:
        kept = problem.x.flatten(1)[:, None].expand(-1, self.kept, -1).clone()
        margin = torch.full(kept.shape[:2], torch.inf, device=kept.device)
        return _State(kept, margin, torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: _State) -> Query:
        rows = self._projected(problem, self._children(problem, state))
        live = torch.ones_like(rows[..., 0], dtype=torch.bool)
        if problem.capability is not None:
            repair = Repair(problem.capability)
            x, lower, upper = (
                one.cpu().numpy() for one in (problem.x, problem.lower, problem.upper)
            )
            found = repair(x, rows.cpu().numpy(), lower, upper)
            live = torch.from_numpy(repair.feasible(x, found)).to(rows.device)
            rows = torch.from_numpy(found).to(rows.device)
            # The best one so far stands in: a generation of misfits does not end the search.
            rows[:, 0] = torch.where(live[:, :1], rows[:, 0], state.kept[:, 0])
            live[:, 0] = True
        going = (state.step < self.generations)[:, None]
        return Query(rows.reshape(*rows.shape[:2], *problem.x.shape[1:]), live & going)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.scores is not None
        b, m = seen.points.shape[:2]
        labels = problem.y.repeat_interleave(m, 0)
        margin = problem.goal.margin(seen.scores.flatten(0, 1), labels).reshape(b, m)
        margin = torch.where(margin.isnan(), torch.inf, margin)
        all_margins = torch.cat((state.margin, margin), 1)
        best = all_margins.argsort(dim=1, stable=True)[:, : self.kept]
        rows = torch.cat((state.kept, seen.points.flatten(2)), 1)
        kept = rows.gather(1, best[..., None].expand(-1, -1, rows.shape[2]))
        return _State(kept, all_margins.gather(1, best), state.step + 1)

    def _children(self, problem: Problem, state: _State) -> Tensor:
        """Crossed and changed rows (B, children, F), not repaired yet."""
        x, lower, upper = (
            one.flatten(1)[:, None] for one in (problem.x, problem.lower, problem.upper)
        )
        b, _, f = x.shape
        shape = (b, self.children, f)

        def drawn(tag: int, each: int) -> Tensor:
            return uniform(problem, tag, state.step, self.children * each).reshape(b, -1, each)

        parents = (drawn(1, 2) * self.kept).long().clamp_max(self.kept - 1)
        # The best one takes part in every other child.
        parents[:, ::2, 0] = 0
        mother, father = (state.kept.gather(1, parents[..., n, None].expand(shape)) for n in (0, 1))
        child = torch.where(drawn(2, f) < 0.5, mother, father)
        free = upper > lower
        share = (1 + drawn(3, 1) * (self.most_moved - 1)) / free.sum(2, keepdim=True).clamp_min(1)
        place, kind = drawn(5, f), drawn(6, f)
        new = torch.where(kind < _NEARBY, child + _NEAR * (place - 0.5) * (upper - lower), x)
        new = torch.where(kind < _ANYWHERE, lower + place * (upper - lower), new)
        new = torch.where(kind < _END, torch.where(place < 0.5, lower, upper), new)
        return torch.where((drawn(4, f) < share) & free & new.isfinite(), new, child)

    def _projected(self, problem: Problem, rows: Tensor) -> Tensor:
        """In the box, and in the ball of the threat's norm, each for itself."""
        shape = problem.x.shape
        each = [project(problem, one.reshape(shape)).flatten(1) for one in rows.unbind(1)]
        return torch.stack(each, 1)
