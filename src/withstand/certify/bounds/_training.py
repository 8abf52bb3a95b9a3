"""Bounds that a loss can be made of: gradients reach the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ._crown import intervals, relaxed
from ._graph import Graph
from ._operations import Interval
from ._reach import Reach


def rivals(y: Tensor, classes: int) -> Tensor:
    """All classes but the label y (B,), in order, (B, K - 1)."""
    others = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    return others + (others >= y[:, None]).long()


def worst_leads(
    graph: Graph, lower: Tensor, upper: Tensor, y: Tensor, *, crown: bool = False
) -> Tensor:
    """Lower bounds (B, K - 1) of the label's lead over each rival while x is in a box (B, ...).

    By interval arithmetic with the last layer merged (Gowal et al. 2018), or by CROWN
    over such intervals (Zhang et al. 2020). In the box's precision, without rounding outward: for
    training, not for proofs.
    """
    classes = graph.shapes[graph.output][0]
    eye = torch.eye(classes, dtype=lower.dtype, device=lower.device)
    lead = (eye[y][:, None] - eye[rivals(y, classes)]).flatten(0, 1)
    owner = torch.arange(len(y), device=y.device).repeat_interleave(classes - 1)
    bounded = intervals(graph, Reach((lower + upper) / 2, Interval(lower, upper)))
    if crown:
        bounded = relaxed(bounded)
    return bounded.least(graph.output, lead, owner, near=not crown).reshape(len(y), -1)
