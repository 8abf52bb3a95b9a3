"""One class after the other, the nearest first: MALT's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..threat import Untargeted
from ._contract import Ask, Attack
from ._problem import Problem


def candidates(targets: int) -> int:
    """How many classes are looked at: three for each target, at least nine."""
    return max(9, 3 * targets)


def nearest(problem: Problem, ask: Ask, targets: int) -> Tensor | None:
    """The nearest classes (B, targets) of each sample, fewer where there are not so many.

    Melamed et al. (2024, section 4): candidates are the classes with the highest scores; they are
    ranked by how near their boundary looks to first order, the lead of the true class over the
    length of its gradient. 2 forwards and `candidates` + 1 backwards; None for other goals.
    """
    if not isinstance(problem.goal, Untargeted):
        return None
    scores, label = ask.scores(problem), problem.y[:, None]
    others = scores.scatter(1, label, -torch.inf)
    count = min(scores.shape[1] - 1, candidates(targets))
    classes = others.topk(count, dim=1).indices
    gradients = ask.jacobian(problem, torch.cat((label, classes), 1)).flatten(2)
    slope = (gradients[:, 1:] - gradients[:, :1]).norm(dim=2)
    lead = scores.gather(1, label) - others.gather(1, classes)
    # Gradients may vanish; then the order is that of the scores.
    order = (lead / slope.clamp_min(1e-12)).argsort(dim=1, stable=True)
    return classes.gather(1, order)[:, :targets]


@dataclass(frozen=True, kw_only=True)
class TowardsTargets(Attack):
    """An attack on the goal's margin, or with `targets` on the lead over each of so many classes.

    The classes come in MALT's order. For goals without classes it is always the margin.
    """

    targets: int = 0

    @property
    def lanes(self) -> int:
        """Targets."""
        return max(self.targets, 1)

    @property
    def plan_cost(self) -> tuple[int, int]:
        """The most forwards and backwards that `plan` asks for."""
        return (2, candidates(self.targets) + 1) if self.targets else (0, 0)

    def plan(self, problem: Problem, ask: Ask) -> Tensor | None:
        """The targets (B, lanes) of each sample, -1 beyond the number of its other classes."""
        return nearest(problem, ask, self.targets) if self.targets else None


def lead(problem: Problem) -> Callable[[Tensor], Tensor]:
    """What scores (B, K) are worth to `TowardsTargets`: positive while the row withstands."""

    def objective(scores: Tensor) -> Tensor:
        target = problem.target[:, None]
        # A plan is made for all rows or for none.
        if bool((target < 0).any()):
            return problem.goal.margin(scores, problem.y)
        pair = scores.gather(1, torch.cat((problem.y[:, None], target), 1))
        return pair[:, 0] - pair[:, 1]

    return objective
