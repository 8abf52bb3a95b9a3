"""An ONNX file as a list of operators between one input and one output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx import AttributeProto, TensorProto
from torch import Tensor

from .._errors import ModelError, listed, one_line

# Importing them registers their operators.
from . import _onnx_layers, _onnx_quantised, _onnx_recurrent, _onnx_shapes  # noqa: F401
from ._onnx_ops import OPERATORS, Node

_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_STANDARD = ("", "ai.onnx")


@dataclass
class Graph:
    """What runs between the input and the output that is attacked.

    shape: of the input, None for a size that is free; batch: the number of rows that it takes at
    once, None if any; missing: operators that have no gradients here; changed: whether `proto` is
    no longer what the file holds; digest: sha256 of the file and of its weights, wherever they lie.
    """

    proto: Any
    input: str
    type: int
    shape: tuple[int | None, ...] | None
    output: str
    labels: bool
    batch: int | None = None
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    changed: bool = False
    digest: bytes = b""

    @property
    def dtype(self) -> torch.dtype | None:
        """The input's type, None if it is not a floating one."""
        return _TYPES[self.type] if self.type in _FLOATS else None


def read_graph(path: Path, name: str) -> Graph:
    """The graph of an ONNX file; raises ModelError for a file that is missing or damaged."""
    if not path.is_file():
        raise ModelError(f"weights {name} are not there; correct model.weights")
    try:
        # By path, since weights may lie in files of their own beside it. The checker of onnx is
        # left out: it refuses what ONNX Runtime runs.
        proto = onnx.load_model(str(path))
        if not proto.graph.output:
            raise ValueError("it holds no network")
    except Exception as error:
        raise ModelError(
            f"weights {name} cannot be read as ONNX ({type(error).__name__}: "
            f"{one_line(error, 100)}); export the network again"
        ) from None
    graph = _ends(proto, name)
    digest = sha256(path.read_bytes())
    for weight in proto.graph.initializer:
        digest.update(weight.raw_data)
    graph.digest = digest.digest()
    _fill(graph)
    return graph


def _ends(proto: Any, name: str) -> Graph:
    """The input and the output that matter; a list of dictionaries gives way to its numbers."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        raise ModelError(
            f"weights {name} take {len(inputs)} inputs ({listed(v.name for v in inputs)}); only a "
            "network of one tensor can be attacked, so export it with the others held fixed"
        )
    changed = _without_dictionaries(proto)
    outputs = [value for value in proto.graph.output if value.type.HasField("tensor_type")]
    floats = [value for value in outputs if value.type.tensor_type.elem_type in _FLOATS]
    wholes = [
        value
        for value in outputs
        if value.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)
    ]
    rows = [value for value in floats if len(value.type.tensor_type.shape.dim) <= 2]
    if not floats and not wholes:
        answers = listed(value.name for value in proto.graph.output)
        raise ModelError(
            f"weights {name} answer with no numbers ({answers}); export the network with its "
            "scores as an output"
        )
    kind = inputs[0].type.tensor_type
    # A size of 0 is how older exporters wrote a free one.
    dims = [d.dim_value or None for d in kind.shape.dim]
    return Graph(
        proto=proto,
        input=inputs[0].name,
        type=kind.elem_type,
        shape=tuple(dims) if kind.HasField("shape") else None,
        batch=dims[0] if dims else None,
        output=(rows or floats or wholes)[0].name,
        labels=not floats,
        changed=changed,
    )


def _without_dictionaries(proto: Any) -> bool:
    """Classifiers of scikit-learn answer with a dictionary a row, made by ZipMap from numbers."""
    graph, maps = proto.graph, [node for node in proto.graph.node if node.op_type == "ZipMap"]
    for node in maps:
        for place, value in enumerate(graph.output):
            if value.name == node.output[0]:
                rows = onnx.helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None)
                graph.output[place].CopyFrom(rows)
        graph.node.remove(node)
    return bool(maps)


def _fill(graph: Graph) -> None:
    proto = _expanded(graph.proto)
    versions = {each.domain: each.version for each in proto.opset_import}
    standard = max((versions.get(domain, 1) for domain in _STANDARD), default=1)
    for tensor in proto.graph.initializer:
        graph.constants[tensor.name] = as_tensor(tensor)
    if proto.graph.sparse_initializer:
        graph.missing.append("sparse weights")
    wanted, kept = {graph.output}, []
    for raw in reversed(proto.graph.node):
        if not wanted.intersection(raw.output):
            continue
        wanted.update(_read_by(raw))
        kept.append(raw)
    for raw in reversed(kept):
        node = _node(raw, versions.get(raw.domain, standard))
        if raw.op_type == "Constant" and raw.domain in _STANDARD:
            value = next(iter(node.attributes.values()))
            graph.constants[raw.output[0]] = (
                value if isinstance(value, Tensor) else torch.as_tensor(value)
            )
        else:
            graph.nodes.append(node)
    graph.missing += sorted({node.op for node in graph.nodes} - set(OPERATORS))


def _read_by(raw: Any) -> Iterator[str]:
    """Names that a node reads, those that its branches read included."""
    yield from raw.input
    for attribute in raw.attribute:
        for branch in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for node in branch.node:
                yield from _read_by(node)


def _expanded(proto: Any) -> Any:
    """Functions of the file, and operators that the standard defines by others, written out."""
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    # What is written out may itself be written in operators that have to be.
    for _ in range(3):
        unknown = {
            (node.domain, node.op_type)
            for node in proto.graph.node
            if _name(node) not in OPERATORS and node.op_type != "Constant"
        }
        defined = [each for each in unknown if _is_function(each)]
        if not defined:
            break
        try:
            typed = onnx.shape_inference.infer_shapes(proto)
            proto = onnx.inliner.inline_selected_functions(
                typed, defined, inline_schema_functions=True
            )
        except Exception:
            # It then counts as missing, and is named.
            break
    return proto


def _is_function(each: tuple[str, str]) -> bool:
    try:
        schema: Any = onnx.defs.get_schema(each[1], domain=each[0])
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _name(raw: Any) -> str:
    return raw.op_type if raw.domain in _STANDARD else f"{raw.domain}.{raw.op_type}"


def _node(raw: Any, version: int) -> Node:
    attributes = {each.name: _value(each) for each in raw.attribute}
    for name in ("to", "output_dtype"):
        if attributes.get(name):
            attributes[name] = _TYPES.get(attributes[name], attributes[name])
    return Node(_name(raw), tuple(raw.input), tuple(raw.output), attributes, version)


def _value(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return as_tensor(value)
    if attribute.type == AttributeProto.STRING:
        return value.decode(errors="replace")
    if attribute.type == AttributeProto.STRINGS:
        return [each.decode(errors="replace") for each in value]
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def as_tensor(proto: Any) -> Tensor:
    """A stored array; types that torch lacks come as int64, and strings as no numbers."""
    array = onnx.numpy_helper.to_array(proto)
    if proto.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if proto.data_type not in _TYPES:
        try:
            array = array.astype(np.int64)
        except (TypeError, ValueError):
            array = np.zeros(array.shape, np.int64)
    return torch.from_numpy(np.array(array))
