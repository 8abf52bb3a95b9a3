"""ONNX operators on torch: shapes, indices, and what moves values without changing them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ._onnx_ops import Inputs, Node, UnsupportedError, given, ints, operator, setting, together


@operator("Shape")
def _shape(node: Node, inputs: Inputs) -> Any:
    sizes = list(inputs[0].shape)
    return torch.tensor(sizes[node.get("start", 0) : node.get("end")], dtype=torch.int64)


@operator("Size")
def _size(node: Node, inputs: Inputs) -> Any:
    return torch.tensor(inputs[0].numel(), dtype=torch.int64)


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, inputs: Inputs) -> Any:
    value = node.get("value")
    value = torch.zeros(1) if value is None else value
    return torch.broadcast_to(value.reshape(()), ints(inputs[0]))


@operator("Range")
def _range(node: Node, inputs: Inputs) -> Any:
    start, limit, step = (value.item() for value in inputs)
    return torch.arange(start, limit, step, dtype=inputs[0].dtype)


@operator("Reshape")
def _reshape(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    sizes = setting(node, "shape", inputs, 1) or []
    if not node.get("allowzero", 0):
        sizes = [x.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    return torch.reshape(x, sizes)


@operator("Flatten")
def _flatten(node: Node, inputs: Inputs) -> Any:
    x, axis = inputs[0], node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Transpose")
def _transpose(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    return x.permute(node.get("perm") or list(range(x.ndim))[::-1])


@operator("Squeeze")
def _squeeze(node: Node, inputs: Inputs) -> Any:
    axes = setting(node, "axes", inputs, 1)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


@operator("Unsqueeze")
def _unsqueeze(node: Node, inputs: Inputs) -> Any:
    x, axes = inputs[0], setting(node, "axes", inputs, 1) or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand")
def _expand(node: Node, inputs: Inputs) -> Any:
    # Both ways: a size of 1 asked for keeps what is there.
    both = torch.broadcast_shapes(inputs[0].shape, ints(inputs[1]))  # type: ignore[no-untyped-call]
    return torch.broadcast_to(inputs[0], both)


@operator("Tile")
def _tile(node: Node, inputs: Inputs) -> Any:
    return inputs[0].repeat(ints(inputs[1]))


@operator("Concat")
def _concat(node: Node, inputs: Inputs) -> Any:
    return torch.cat(together(*inputs), node.get("axis", 1))


@operator("Split")
def _split(node: Node, inputs: Inputs) -> Any:
    x, axis = inputs[0], node.get("axis", 0)
    sizes = setting(node, "split", inputs, 1)
    if sizes is None:
        # The last part is smaller where they do not come out even.
        parts = node.get("num_outputs", len(node.outputs))
        return x.tensor_split(list(_starts(x.shape[axis], parts)), axis)
    return x.split_with_sizes(sizes, axis)


def _starts(size: int, parts: int) -> range:
    most = -(-size // parts)
    return range(most, most * parts, most)


@operator("Slice")
def _slice(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    starts, ends = setting(node, "starts", inputs, 1) or [], setting(node, "ends", inputs, 2) or []
    axes = setting(node, "axes", inputs, 3) or list(range(len(starts)))
    steps = setting(node, "steps", inputs, 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Python's slices count from the end and stop at it as the standard's do.
        chosen = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, chosen.start, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def take(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Entries of one axis, by indices of any shape that may count from the end."""
    indices = indices.to(x.device, torch.int64)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    axis = axis % x.ndim
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("Gather")
def _gather(node: Node, inputs: Inputs) -> Any:
    return take(inputs[0], node.get("axis", 0), inputs[1])


@operator("GatherElements")
def _gather_elements(node: Node, inputs: Inputs) -> Any:
    x, indices = together(inputs[0], inputs[1])
    axis = node.get("axis", 0)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    return x.gather(axis, indices.to(torch.int64))


@operator("ai.onnx.ml.ArrayFeatureExtractor")
def _columns(node: Node, inputs: Inputs) -> Any:
    return take(inputs[0], -1, inputs[1].reshape(-1))


@operator("Trilu")
def _trilu(node: Node, inputs: Inputs) -> Any:
    k = 0 if given(inputs, 1) is None else ints(inputs[1])[0]
    return inputs[0].triu(k) if node.get("upper", 1) else inputs[0].tril(k)


@operator("DepthToSpace")
def _depth_to_space(node: Node, inputs: Inputs) -> Any:
    x, b = inputs[0], node.get("blocksize")
    n, c, h, w = x.shape
    if node.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, b)
    blocks = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, inputs: Inputs) -> Any:
    x, b = inputs[0], node.get("blocksize")
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * b**2, h // b, w // b)


@operator("Pad")
def _pad(node: Node, inputs: Inputs) -> Any:
    x, mode = inputs[0], node.get("mode", "constant")
    pads = setting(node, "pads", inputs, 1) or []
    axes = ints(given(inputs, 3)) if given(inputs, 3) is not None else list(range(x.ndim))
    sides = list(zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True))
    if mode == "constant":
        value = node.get("value", 0.0) if given(inputs, 2) is None else inputs[2].item()
        flat = [0] * (2 * x.ndim)
        for axis, before, after in sides:
            place = 2 * (x.ndim - 1 - axis % x.ndim)
            flat[place : place + 2] = before, after
        return functional.pad(x, flat, value=value)
    for axis, before, after in sides:
        size = x.shape[axis]
        where = torch.arange(-before, size + after)
        if mode == "edge":
            where = where.clamp(0, size - 1)
        elif mode == "wrap":
            where = where % size
        elif mode == "reflect":
            # A triangular wave, which a padding wider than the axis follows on.
            period = max(2 * (size - 1), 1)
            where = where.abs() % period
            where = torch.minimum(where, period - where) if size > 1 else where * 0
        else:
            raise UnsupportedError(f"Pad with mode {mode}")
        x = take(x, axis, where)
    return x
