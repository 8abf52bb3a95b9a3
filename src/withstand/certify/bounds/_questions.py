"""What must hold for the attacker's goal to fail, as linear functions of the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._errors import ThreatError
from ...threat import Goal, MultiLabel, Regression, Targeted, Untargeted
from ._training import rivals


@dataclass(frozen=True)
class Questions:
    """Functions a (B, S, K) of the scores plus an offset (B, S), and how they make one margin.

    margin: from the values (B, S) of all functions to what the attacker must bring below 0, (B,);
    never falling in any of them, so that it turns lower bounds into a lower bound.
    """

    a: Tensor
    offset: Tensor
    margin: Callable[[Tensor], Tensor]


def questions(goal: Goal, y: Tensor, classes: int) -> Questions:
    """For labels or values y (B,) or (B, K) and so many scores K; tensors in float64.

    Raises ThreatError for a goal that is none of those, and for a target that is no class.
    """
    eye = torch.eye(classes, dtype=torch.float64, device=y.device)
    if isinstance(goal, Regression):
        signs = {"up": [-1.0], "down": [1.0], "any": [-1.0, 1.0]}[goal.direction]
        sign = eye.new_tensor(signs)
        if classes != 1:
            raise ThreatError(f"the goal is regression and the model gives {classes} scores, not 1")
        a = sign[None, :, None].expand(len(y), -1, 1)
        return Questions(a, goal.tolerance - sign * y.reshape(-1, 1).double(), _least)
    if isinstance(goal, MultiLabel):
        a = eye * (2 * (y > 0).double() - 1)[:, :, None]
        return Questions(a, a.new_zeros(a.shape[:2]), lambda values: _flipped(values, goal.flips))
    if not isinstance(goal, Untargeted | Targeted):
        raise ThreatError(f"the goal {goal.describe()!r} cannot be proven to fail by bounds")
    if classes < 2:
        raise ThreatError("the model gives one score; the goal needs one for each class")
    label = y.long() if isinstance(goal, Untargeted) else torch.full_like(y, goal.target).long()
    if not bool(((label >= 0) & (label < classes)).all()):
        raise ThreatError(f"labels and target must be 0 to {classes - 1}; the model has no other")
    lead = eye[label][:, None] - eye[rivals(label, classes)]
    offset = lead.new_zeros(lead.shape[:2])
    if isinstance(goal, Untargeted):
        return Questions(lead, offset, _least)
    # A sample of the target's own class is no target.
    offset[y == goal.target] = torch.inf
    return Questions(-lead, offset, lambda values: values.amax(1))


def _least(values: Tensor) -> Tensor:
    return values.amin(1)


def _flipped(values: Tensor, flips: int) -> Tensor:
    return values.topk(flips, dim=1, largest=False).values[:, -1]
