"""What gradient attacks maximise: functions of scores (B, K) that give one value a row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .._errors import ThreatError
from ..threat import Evading, Targeted, Untargeted
from ._problem import Problem

LOSSES = ("ce", "dlr", "margin", "pma", "selective", "targeted", "tempered")


def loss(name: str, problem: Problem, scores: Tensor, temperature: Tensor | None = None) -> Tensor:
    """The named loss of scores (B, K); goals without classes have their own margin as the only one.

    ce: cross-entropy. tempered: that of scores over a quarter of z1 - z3, which is held while
    differentiating, for models whose own is saturated. margin: the goal's margin, negated. dlr: the
    margin over z1 - z3 (Croce and Hein 2020, eq. 6). pma: the margin between probabilities (Xie et
    al. 2024), here of scores over a quarter of z1 - z3, because the plain form vanishes with the
    scale of the logits. targeted: the lead of the row's target class over z1 - (z3 + z4) / 2
    (Croce and Hein, eq. 7). With two classes all but ce and tempered are the margin. selective, for
    the goal Evading: the inner goal until it is reached, from then on the detector's silence
    (Bryniarski et al. 2021), so that neither outweighs the other. With a temperature (B,) margin
    and dlr keep their values, but the gradient is of a blend: each rival class weighs as in a
    softmax over temperature * (z1 - z3) / 4, so that a search is not bound to the one that leads
    near x.
    """
    if name not in LOSSES:
        raise ThreatError(f"loss is {name!r}; it is one of {', '.join(LOSSES)}")
    goal = problem.goal
    if isinstance(goal, Evading) and name == "selective":
        return _selective(goal, problem, scores)
    if not isinstance(goal, Untargeted | Targeted) or name in ("margin", "selective"):
        return -_margin(problem, scores, temperature)
    if name == "ce":
        return _entropy(goal, problem, scores)
    if name == "tempered":
        top = scores.detach().topk(min(3, scores.shape[1]), dim=1).values
        spread = (top[:, 0] - top[:, -1]).clamp_min(1e-12)
        return _entropy(goal, problem, 4 * scores / spread[:, None])
    if scores.shape[1] < 3:
        # Two classes have no third score: over z1 - z2 the margin would be constant.
        return -goal.margin(scores, problem.y)
    if name == "targeted":
        return _targeted(problem, scores)
    top = scores.topk(3, dim=1).values
    spread = (top[:, 0] - top[:, -1]).clamp_min(1e-12)
    if name == "dlr":
        return -_margin(problem, scores, temperature) / spread
    return -goal.margin((4 * scores / spread[:, None]).softmax(1), problem.y)


def _margin(problem: Problem, scores: Tensor, temperature: Tensor | None) -> Tensor:
    goal = problem.goal
    margin = goal.margin(scores, problem.y)
    classes = isinstance(goal, Untargeted | Targeted) and scores.shape[1] >= 3
    if temperature is None or not classes:
        return margin
    own = torch.full_like(problem.y, goal.target) if isinstance(goal, Targeted) else problem.y
    own = own[:, None]
    held = scores.detach()
    top = held.topk(3, dim=1).values
    # Infinite scores weigh nothing, or all alike.
    scale = (temperature * (top[:, 0] - top[:, -1]) / 4).clamp(1e-12, 1e12)
    weight = (held.scatter(1, own, -torch.inf) / scale[:, None]).softmax(1)
    rivals = (weight * torch.where(weight > 0, scores, 0.0)).sum(1)
    blend = scores.gather(1, own)[:, 0] - rivals
    blend = -blend if isinstance(goal, Targeted) else blend
    return torch.where(blend.isfinite(), margin.detach() + (blend - blend.detach()), margin)


def _entropy(goal: Untargeted | Targeted, problem: Problem, scores: Tensor) -> Tensor:
    if isinstance(goal, Targeted):
        wanted = torch.full_like(problem.y, goal.target)
        return -cross_entropy(scores, wanted, reduction="none")
    return cross_entropy(scores, problem.y, reduction="none")


def _targeted(problem: Problem, scores: Tensor) -> Tensor:
    top = scores.topk(min(4, scores.shape[1]), dim=1).values
    spread = (top[:, 0] - top[:, 2:].mean(1)).clamp_min(1e-12)
    target = torch.where(problem.target < 0, problem.y, problem.target)
    pair = scores.gather(1, torch.stack((target, problem.y), 1))
    return (pair[:, 0] - pair[:, 1]) / spread


def _selective(goal: Evading, problem: Problem, scores: Tensor) -> Tensor:
    margin, silence = goal.goal.margin(scores[:, :-1], problem.y), scores[:, -1]
    # Between -2 and -1 on the way to the inner goal, between -1 and 1 beyond: it always rises.
    return torch.where(margin > 0, -margin / (1 + margin.abs()) - 1, silence / (1 + silence.abs()))
