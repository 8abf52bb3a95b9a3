"""A network as a short list of operations, in the order in which they can be done."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._activations import Activation
from ._moves import Nonnegative, Reshape, Scaling
from ._operations import Interval, Operation, Shape, Unit


@dataclass(frozen=True)
class Node:
    """One operation, the nodes that it takes, and the shape of its value for one sample."""

    operation: Operation
    inputs: tuple[int, ...]
    shape: Shape


class Graph:
    """Node 0 is the input and has no operation; the last node is the output."""

    def __init__(self, shape: Shape, nodes: tuple[Node, ...], output: int) -> None:
        self.shapes = (shape, *(node.shape for node in nodes))
        self._nodes = nodes
        self.output = output

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, at: int) -> Node:
        if at < 1:
            raise IndexError("the input has no operation")
        return self._nodes[at - 1]

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (B, K) of inputs (B, ...)."""
        values = [x]
        for node in self._nodes:
            values.append(node.operation(*(values[i] for i in node.inputs)))
        return values[self.output]

    def intervals(self, box: Interval) -> list[Interval]:
        """Bounds of every node's value by interval arithmetic (IBP, Gowal et al. 2018)."""
        boxes = [box]
        for node in self._nodes:
            boxes.append(node.operation.interval(*(boxes[i] for i in node.inputs)))
        return boxes

    def rounding(self, boxes: list[Interval], unit: float, factors: float = 0.0) -> Tensor:
        """How far arithmetic of this unit roundoff takes the scores from the exact ones, (B, K).

        It holds for sums taken in any order. factors: the unit roundoff of the factors of products
        in linear layers and convolutions, where they are rounded before, as TF32 does.
        """
        both = Unit(unit, factors)
        errors = [boxes[0].largest.new_zeros(boxes[0].lower.shape)]
        for node in self._nodes:
            inside = tuple(boxes[i] for i in node.inputs)
            reached = tuple(errors[i] for i in node.inputs)
            errors.append(node.operation.error(both, inside, reached))
        return errors[self.output]

    def exact(self) -> list[bool]:
        """Whether interval arithmetic gives a node's tightest bounds over a box, by node.

        It does up to the first layer that mixes numbers, and in what works on each alone.
        """
        apart, tight = [True], [True]
        for node in self._nodes:
            alone = isinstance(node.operation, Scaling | Reshape) or (
                isinstance(node.operation, Activation) and node.shape == self.shapes[node.inputs[0]]
            )
            moved = isinstance(node.operation, Nonnegative) and not node.operation.terms
            before = all(apart[i] for i in node.inputs) and len(node.inputs) == 1
            apart.append(before and alone)
            tight.append(before or (all(tight[i] for i in node.inputs) and (alone or moved)))
        return tight
