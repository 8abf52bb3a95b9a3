"""ONNX operators on torch: whole numbers in place of real ones.

Whole numbers are kept as floats, so that gradients pass. Rounding is the identity on the way back
(Bengio et al. 2013), and what is cut off at the ends of a type has no gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._onnx_layers import convolution
from ._onnx_ops import Inputs, Node, UnsupportedError, given, operator, together

ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")
"""Operators whose answers jump where a value is rounded otherwise."""
STORED = ("DequantizeLinear",)
"""Operators beside which ONNX Runtime may round what the file does not."""


def _along(node: Node, values: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point, shaped to meet x."""
    if node.get("block_size"):
        raise UnsupportedError(f"{node.op} with block_size {node.get('block_size')}")
    if values.numel() == 1:
        return values.reshape(())
    return _at(node.get("axis", 1), values, x)


def _at(axis: int, values: Tensor, x: Tensor) -> Tensor:
    """One value for each place along an axis of x."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _rounded(x: Tensor) -> Tensor:
    # The first difference is exactly 0, so that nothing but the rounded value is left.
    return (x - x.detach()) + x.detach().round()


def _quantised(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    kind = node.get("output_dtype") or torch.uint8 if zero is None else zero.dtype
    if kind not in (torch.uint8, torch.int8, torch.int16, torch.int32):
        raise UnsupportedError(f"{node.op} to a type other than whole numbers of 8, 16 or 32 bits")
    scale = _along(node, scale, x)
    y = _rounded(x.to(scale.dtype) / scale)
    if zero is not None:
        y = y + _along(node, zero, x).to(y.dtype)
    ends = torch.iinfo(kind)
    return y.clamp(ends.min, ends.max)


def _real(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    values = x.to(scale.dtype)
    if zero is not None:
        values = values - _along(node, zero, x).to(scale.dtype)
    return values * _along(node, scale, x)


@operator("QuantizeLinear")
def _quantize_linear(node: Node, inputs: Inputs) -> Any:
    x, scale, *zero = together(*(each for each in inputs[:3] if each is not None))
    return _quantised(node, x, scale, zero[0] if zero else None)


@operator("DequantizeLinear")
def _dequantize_linear(node: Node, inputs: Inputs) -> Any:
    x, scale, *zero = together(*(each for each in inputs[:3] if each is not None))
    return _real(node, x, scale, zero[0] if zero else None)


@operator("DynamicQuantizeLinear")
def _dynamic_quantize_linear(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    low, high = x.detach().amin().clamp_max(0), x.detach().amax().clamp_min(0)
    scale = (high - low) / 255
    # Of zeros alone the scale is 0.
    step = torch.where(scale == 0, 1.0, scale)
    zero = (-low / step).round().clamp(0, 255)
    return (_rounded(x / step) + zero).clamp(0, 255), scale, zero.to(torch.uint8)


def _centred(values: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """Whole numbers as floats, less their zero point: one, or one for each place of an axis."""
    values = values.float()
    if zero is None:
        return values
    zero = zero.to(values.device, values.dtype)
    return values - (zero.reshape(()) if zero.numel() == 1 else _at(axis, zero, values))


@operator("MatMulInteger")
def _matmul_integer(node: Node, inputs: Inputs) -> Any:
    a, b = together(*inputs[:2])
    return _centred(a, given(inputs, 2), -2) @ _centred(b, given(inputs, 3), -1)


@operator("ConvInteger")
def _conv_integer(node: Node, inputs: Inputs) -> Any:
    x, weight = together(*inputs[:2])
    x, weight = _centred(x, given(inputs, 2), 1), _centred(weight, given(inputs, 3), 0)
    return convolution(node, x, weight, None)


@operator("QLinearConv")
def _qlinear_conv(node: Node, inputs: Inputs) -> Any:
    x, x_scale, x_zero, weight, w_scale, w_zero, scale, zero, *bias = together(*inputs)
    kernels = _real(replace(node, attributes={"axis": 0}), weight, w_scale, w_zero)
    added = (bias[0] * (x_scale * w_scale)).expand(len(weight)) if bias else None
    out = convolution(node, _real(node, x, x_scale, x_zero), kernels, added)
    return _quantised(node, out, scale, zero)


@operator("QLinearMatMul")
def _qlinear_matmul(node: Node, inputs: Inputs) -> Any:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = together(*inputs)
    rows, columns = (replace(node, attributes={"axis": axis}) for axis in (-2, -1))
    out = _real(rows, a, a_scale, a_zero) @ _real(columns, b, b_scale, b_zero)
    return _quantised(rows, out, scale, zero)
