"""Bounds carried back through a network (CROWN, Zhang et al. 2018; Xu et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from ._activations import Activation, Relaxation
from ._graph import Graph
from ._linear import Convolution
from ._moves import Reshape, Scaling
from ._operations import Affine, Interval
from ._reach import Reach
from ._windows import Windowed

# Numbers in the largest matrix of a chunk of functions; more do not fit a processor's cache.
CHUNK = 2**21


@dataclass(frozen=True)
class Bounded:
    """A graph over a region: bounds of every node, and the lines around every activation."""

    graph: Graph
    reach: Reach
    boxes: list[Interval]
    lines: dict[int, Relaxation] = field(default_factory=dict)

    def take(self, rows: Tensor) -> Bounded:
        """That of some samples."""
        boxes = [Interval(box.lower[rows], box.upper[rows]) for box in self.boxes]
        lines = {at: line.take(rows) for at, line in self.lines.items()}
        return Bounded(self.graph, self.reach.take(rows), boxes, lines)

    def least(
        self,
        at: int,
        a: Tensor,
        owner: Tensor,
        *,
        near: bool = False,
        slopes: Mapping[int, Tensor] | None = None,
        less: Mapping[int, Tensor] | None = None,
        seen: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Lower bounds (R,) of linear functions a (R, ...) of the value of node `at`.

        owner: the sample each of them belongs to, (R,). They are carried back to the input; with
        `near`, to the nearest activations only, whose boxes then bound them. slopes: lower slopes
        (R, ...) to take at activations instead of their own; less: functions (R, ...) of other
        nodes' values to subtract; seen: takes the functions as they come to activations and input.
        """
        less = less or {}
        waiting = _joined((at, *less), (a, *(-function for function in less.values())))
        return self._carried(waiting, a.new_zeros(len(a)), owner, near, slopes, seen)

    def single(self, at: int, places: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (R,) of single values, at flat places (R,) of node `at`."""
        node = self.graph[at]
        factor = self.reach.x.new_ones(len(places))
        added: Tensor | float = 0.0
        while isinstance(node.operation, Reshape | Scaling) and node.inputs[0]:
            if isinstance(node.operation, Scaling):
                scale, shift = (
                    constant.expand(node.shape).flatten()[places]
                    for constant in node.operation.constants(factor)
                )
                added, factor = added + factor * shift, factor * scale
            node = self.graph[node.inputs[0]]
        shapes = tuple(self.graph.shapes[i] for i in node.inputs)
        if isinstance(node.operation, Convolution) and node.operation.plain:
            window = Windowed.single(node.operation, places, owner, node.shape, shapes[0])
            if node.operation.bias is not None:
                bias = node.operation.bias[places // prod(node.shape[1:])]
                added = added + factor * bias
            window = window.times(factor)
            total = factor.new_zeros(len(factor)) + added
            low = self._seen_through(node.inputs[0], window, total)
            return low, -self._seen_through(node.inputs[0], window.times(-1.0), -total)
        if isinstance(node.operation, Affine):
            parts, constant = node.operation.single(places, node.shape, shapes)
            parts = tuple(factor.view(-1, *(1,) * (part.ndim - 1)) * part for part in parts)
            total = added + factor * constant
        else:
            # An activation of an activation, whose bounds by intervals are good enough.
            low, high = (bound.flatten(1)[owner, places] for bound in self.boxes[at])
            return low, high
        low = self._carried(_joined(node.inputs, parts), total, owner)
        return low, -self._carried(_joined(node.inputs, [-part for part in parts]), -total, owner)

    def _seen_through(self, at: int, window: Windowed, total: Tensor) -> Tensor:
        """Lower bounds (R,) of functions of windows of node `at` plus a total (R,)."""
        while window.worth:
            if at == 0:
                return total + window.least(self.reach)
            node = self.graph[at]
            shape = self.graph.shapes[node.inputs[0]]
            further = window.through(node.operation, self.lines.get(at), shape)
            if further is None:
                break
            at, window, total = node.inputs[0], further[0], total + further[1]
        return self._carried({at: window.whole()}, total, window.place.owner)

    def _carried(
        self,
        waiting: dict[int, Tensor],
        total: Tensor,
        owner: Tensor,
        near: bool = False,
        slopes: Mapping[int, Tensor] | None = None,
        seen: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Lower bounds of sums of linear functions (R, ...) of nodes' values plus a total (R,)."""
        for here in range(max(waiting), 0, -1):
            if here not in waiting:
                continue
            a, node = waiting.pop(here), self.graph[here]
            if isinstance(node.operation, Affine):
                total = total + node.operation.constant(a)
                shapes = tuple(self.graph.shapes[i] for i in node.inputs)
                parts = node.operation.pull(a, shapes)
            elif near:
                total = total + _within(a, self.boxes[here], owner)
                continue
            else:
                if seen is not None:
                    seen[here] = a
                chosen = None if slopes is None else slopes.get(here)
                back, added = self.lines[here].pull(a, owner, chosen)
                parts, total = (back,), total + added
            waiting = _joined((*node.inputs, *waiting), (*parts, *waiting.values()))
        if 0 not in waiting:
            return total
        if seen is not None:
            seen[0] = waiting[0]
        return total + self.reach.least(waiting[0], owner)

    def chunks(self, rows: int) -> list[slice]:
        """Rows of functions in pieces that fit."""
        widest = max(torch.Size(shape).numel() for shape in self.graph.shapes)
        size = max(1, CHUNK // widest)
        return [slice(start, start + size) for start in range(0, rows, size)]


def _joined(nodes: Iterable[int], parts: Iterable[Tensor]) -> dict[int, Tensor]:
    joined: dict[int, Tensor] = {}
    for node, part in zip(nodes, parts, strict=True):
        joined[node] = joined[node] + part if node in joined else part
    return joined


def _within(a: Tensor, box: Interval, owner: Tensor) -> Tensor:
    a = a.flatten(1) / 2
    twice, width = (box.lower + box.upper).flatten(1), (box.upper - box.lower).flatten(1)
    samples = len(twice)
    each = len(a) // max(1, samples)
    if torch.equal(owner, torch.arange(samples, device=a.device).repeat_interleave(each)):
        # All samples have equally many functions, in order, as in training: nothing to gather.
        a = a.reshape(samples, each, a.shape[1])
        at, reached = torch.bmm(a, twice[:, :, None]), torch.bmm(a.abs(), width[:, :, None])
    else:
        at = torch.linalg.vecdot(a, twice[owner])
        reached = torch.linalg.vecdot(a.abs(), width[owner])
    found: Tensor = torch.sub(at, reached).flatten()
    return found


def intervals(graph: Graph, reach: Reach) -> Bounded:
    """Bounds of all nodes by interval arithmetic, without lines."""
    return Bounded(graph, reach, graph.intervals(reach.box))


def relaxed(bounded: Bounded) -> Bounded:
    """The same bounds, with lines around every activation over them."""
    graph, lines = bounded.graph, {}
    for at in range(1, len(graph)):
        operation = graph[at].operation
        if isinstance(operation, Activation):
            lines[at] = operation.relax(bounded.boxes[graph[at].inputs[0]])
    return Bounded(graph, bounded.reach, bounded.boxes, lines)


def refined(bounded: Bounded) -> Bounded:
    """Bounds of the activations' inputs carried back one layer after the other, and their lines.

    Only numbers are bounded again whose line depends on it; no bound is ever looser than before.
    """
    graph, boxes = bounded.graph, list(bounded.boxes)
    # A ball's own bounds are those of the box around it at the input alone.
    tight = graph.exact() if not bounded.reach.balls else [True] + [False] * (len(graph) - 1)
    found = Bounded(graph, bounded.reach, boxes)
    own: dict[int, Interval] = {}
    for at in range(1, len(graph)):
        node = graph[at]
        if isinstance(node.operation, Activation):
            source = node.inputs[0]
            if source not in own and not tight[source]:
                own[source] = _carried(found, source, node.operation.contested(boxes[source]))
                boxes[source] = _both(boxes[source], own[source])
            found.lines[at] = node.operation.relax(boxes[source], own.get(source))
        again = node.operation.interval(*(boxes[i] for i in node.inputs))
        boxes[at] = _both(boxes[at], again)
    return found


def _both(a: Interval, b: Interval) -> Interval:
    return Interval(torch.maximum(a.lower, b.lower), torch.minimum(a.upper, b.upper))


def _carried(bounded: Bounded, at: int, wanted: Tensor) -> Interval:
    """The bounds of a node, those of the wanted numbers (B, ...) carried back to the input."""
    box = bounded.boxes[at]
    owner, place = wanted.flatten(1).nonzero(as_tuple=True)
    lower, upper = (bound.flatten(1).clone() for bound in box)
    for rows in bounded.chunks(len(owner)):
        mine, where = owner[rows], place[rows]
        lower[mine, where], upper[mine, where] = bounded.single(at, where, mine)
    return Interval(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))
