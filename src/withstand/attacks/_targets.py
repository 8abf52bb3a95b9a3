"""Which classes to attack first: MALT's order."""

from __future__ import annotations

import torch
from torch import Tensor

from ..threat import Untargeted
from ._contract import Ask
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
