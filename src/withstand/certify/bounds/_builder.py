"""A graph while it is read off a module, with an example of every value."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..._errors import ModelError
from ._graph import Node
from ._operations import Operation, Shape

# A batch of a size that no other axis is likely to have, so that mixing them up shows.
BATCH = 5


class Value(NamedTuple):
    """What a node gives for a batch of examples."""

    node: int
    example: Tensor

    @property
    def shape(self) -> Shape:
        """The shape of one sample's value."""
        return tuple(self.example.shape[1:])


class Builder:
    """A graph while it grows."""

    def __init__(self, x: Tensor) -> None:
        self.nodes: list[Node] = []
        self.input = Value(0, x)

    def add(self, operation: Operation, *inputs: Value) -> Value:
        """Append an operation on these values."""
        example = operation(*(value.example for value in inputs))
        if not len(example) == BATCH:
            raise ModelError(
                f"{type(operation).__name__.lower()} gives {tuple(example.shape)} for "
                f"{BATCH} samples; the first axis must stay the samples'"
            )
        shape = tuple(example.shape[1:])
        self.nodes.append(Node(operation, tuple(value.node for value in inputs), shape))
        return Value(len(self.nodes), example)
