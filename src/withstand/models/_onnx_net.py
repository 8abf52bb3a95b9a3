"""An ONNX graph as a torch module, so that it has gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .._errors import ModelError
from ._onnx_graph import Graph
from ._onnx_ops import OPERATORS, Node

# Numbers that these operators read on the CPU; all else that floats is a weight.
_READ = ("Clip", "Pad", "Range", "Resize", "Upsample")


# Operators whose answer's shape follows from the values of their inputs from this place on.
_SIZED = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "Pad": 1,
    "Range": 0,
    "Reshape": 1,
    "Resize": 1,
    "Slice": 1,
    "Split": 1,
    "Squeeze": 1,
    "Tile": 1,
    "Unsqueeze": 1,
    "Upsample": 1,
}
# Input shapes whose sizes are kept.
_SHAPES = 16


class OnnxNet(nn.Module):
    """Runs a graph on torch, from raw input (B, ...) to scores.

    Probabilities of a softmax at the end come as their logarithm, which has the same classes and
    does not saturate. A network whose batch size is fixed takes any: its batches are mapped over.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.input, self.output, self.shape = graph.input, graph.output, graph.shape
        self.dtype, self.batch = graph.dtype, graph.batch
        self.mapped = True
        nodes, constants = _dequantised(graph.nodes, graph.constants)
        nodes, self.logarithms = _logarithmic(nodes, graph.output)
        self.plain: dict[str, Tensor] = {}
        self.kept: dict[str, str] = {}
        self._keep(nodes, constants)
        self.sizes = _of_sizes(nodes, set(self.plain)) - {graph.output}
        moving = [node for node in nodes if not self.sizes.issuperset(node.outputs)]
        self.steps = list(zip(nodes, _freed(nodes, graph.output), strict=True))
        self.moving = list(zip(moving, _freed(moving, graph.output), strict=True))
        self.known: dict[torch.Size, dict[str, Tensor]] = {}
        # So that what is printed about the weights changes with the graph, too.
        self.register_buffer("file", torch.frombuffer(bytearray(graph.digest), dtype=torch.uint8))

    def _keep(self, nodes: list[Node], constants: Mapping[str, Tensor]) -> None:
        read = {name for node in nodes if node.op in _READ for name in node.inputs}
        used = {name for node in nodes for name in node.inputs} | {self.output}
        counted = {
            name for node in nodes if node.op == "BatchNormalization" for name in node.inputs[3:]
        }
        for place, (name, value) in enumerate(constants.items()):
            if name not in used:
                continue
            if not value.is_floating_point() or value.ndim == 0 or name in read:
                self.plain[name] = value
                continue
            self.kept[name] = key = f"weight{place}"
            if name in counted:
                self.register_buffer(key, value)
            else:
                self.register_parameter(key, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a batch of raw inputs; raises ModelError for a shape that does not fit."""
        self._fits(x)
        x = x.to(self.dtype)
        if self.batch is None or len(x) == self.batch:
            return self._run(x)
        rows, missing = len(x), -len(x) % self.batch
        if missing:
            x = torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
        groups = x.reshape(-1, self.batch, *x.shape[1:])
        return self._each(groups).flatten(0, 1)[:rows]

    def _each(self, groups: Tensor) -> Tensor:
        """The answers to batches of the size that the network takes, all at once if that works."""
        if self.mapped:
            try:
                return torch.func.vmap(self._run)(groups)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                # Sizes that follow from values cannot be mapped over.
                out = torch.stack([self._run(group) for group in groups])
                self.mapped = False
                return out
        return torch.stack([self._run(group) for group in groups])

    def _fits(self, x: Tensor) -> None:
        if self.shape is None:
            return
        sizes = zip(self.shape[1:], x.shape[1:], strict=False)
        if len(self.shape) != x.ndim or any(wanted not in (None, size) for wanted, size in sizes):
            wanted = ", ".join("any" if size is None else str(size) for size in self.shape[1:])
            raise ModelError(
                f"the network takes inputs of shape ({wanted}), but {tuple(x.shape[1:])} came; "
                "set model.layout: hwc if it takes the channels last, or correct the data"
            )

    def _run(self, x: Tensor) -> Tensor:
        known = self.known.get(x.shape)
        values = {self.input: x} | (known or {})
        sizes: dict[str, Tensor] = {}
        for node, freed in self.steps if known is None else self.moving:
            inputs = [self._value(name, values) for name in node.inputs]
            out = OPERATORS[node.op](node, inputs)
            outs = (out,) if isinstance(out, Tensor) else out
            named = dict(zip(node.outputs, outs, strict=False))
            values.update(named)
            if known is None:
                sizes.update({name: v for name, v in named.items() if name in self.sizes})
            for name in freed:
                values.pop(name, None)
        if known is None:
            # A batch that shrinks has many sizes; what they lead to is quickly found again.
            self.known = {**(self.known if len(self.known) < _SHAPES else {}), x.shape: sizes}
        found = self._value(self.output, values)
        assert found is not None
        return found

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self.plain:
            return self.plain[name]
        value: Tensor = getattr(self, self.kept[name])
        return value


def _dequantised(
    nodes: list[Node], constants: Mapping[str, Tensor]
) -> tuple[list[Node], dict[str, Tensor]]:
    """Weights that are stored as whole numbers, made real once and for all."""
    kept, known = [], dict(constants)
    for node in nodes:
        if node.op == "DequantizeLinear" and known.keys() >= {*node.inputs} - {""}:
            known[node.outputs[0]] = OPERATORS[node.op](node, [known.get(n) for n in node.inputs])
        else:
            kept.append(node)
    return kept, known


def _of_sizes(nodes: list[Node], plain: set[str]) -> set[str]:
    """Values that follow from the input's shape alone, which exporters compute at length."""
    found, tensors = plain | {""}, set[str]()
    for node in nodes:
        if node.op in ("Shape", "Size") or found.issuperset(node.inputs):
            found.update(node.outputs)
        elif node.op in _SIZED and not found.issuperset(node.inputs[_SIZED[node.op] :]):
            # A shape that follows from values: nothing behind it can be known beforehand.
            return set()
        tensors.update(node.outputs)
    return found & tensors


def _freed(nodes: list[Node], output: str) -> list[list[str]]:
    """For each node the values that nothing after it reads."""
    seen, freed = {output}, []
    for node in reversed(nodes):
        names = {*node.inputs, *node.outputs} - seen
        freed.append(sorted(names))
        seen |= names
    return freed[::-1]


def _logarithmic(nodes: list[Node], output: str) -> tuple[list[Node], bool]:
    """The nodes with the logarithm of a softmax at the end, and whether there was one."""
    last = next((node for node in nodes if output in node.outputs), None)
    name = output
    while last is not None and last.op == "Identity":
        name = last.inputs[0]
        last = next((node for node in nodes if name in node.outputs), None)
    readers = [node for node in nodes if name in node.inputs and node.op != "Identity"]
    if last is None or last.op != "Softmax" or readers:
        return nodes, False
    return [replace(n, op="LogSoftmax") if n is last else n for n in nodes], True
