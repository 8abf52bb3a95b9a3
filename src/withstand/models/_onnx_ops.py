"""ONNX operators on torch: elementwise, logic, reductions, products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Inputs = Sequence[Any]


class UnsupportedError(Exception):
    """What an operator is asked for and cannot do; the text names it."""


@dataclass(frozen=True)
class Node:
    """One operator of a graph: names of what goes in and out, attributes, and its opset."""

    op: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    version: int = 21

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default."""
        return self.attributes.get(name, default)

    def only(self, name: str, *allowed: Any) -> None:
        """Raises UnsupportedError if an attribute has another value than these."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise UnsupportedError(f"{self.op} with {name} {value}")


Operator = Callable[[Node, Inputs], Any]
"""From a node and its inputs to its output, or to a sequence of its outputs."""
OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function as the operators of these names."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def ints(value: Tensor | Sequence[int] | int) -> list[int]:
    """The whole numbers of a tensor or of an attribute."""
    if isinstance(value, int):
        return [value]
    values = value.reshape(-1).tolist() if isinstance(value, Tensor) else value
    return [int(number) for number in values]


def given(inputs: Inputs, place: int) -> Any:
    """The input at a place, None if it was left out."""
    return inputs[place] if place < len(inputs) else None


def setting(node: Node, name: str, inputs: Inputs, place: int) -> list[int] | None:
    """Whole numbers that older operators hold as an attribute and newer ones take as an input."""
    value = node.get(name) if node.get(name) is not None else given(inputs, place)
    return None if value is None else ints(value)


def together(*tensors: Tensor) -> list[Tensor]:
    """The tensors on one device: shapes and indices stay on the CPU until they meet data."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), tensors[0].device)
    return [t.to(device) for t in tensors]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(inputs[0])


OPERATORS |= {
    "Abs": _unary(torch.abs),
    "Acos": _unary(torch.acos),
    "Asin": _unary(torch.asin),
    "Atan": _unary(torch.atan),
    "Ceil": _unary(torch.ceil),
    "Cos": _unary(torch.cos),
    "Cosh": _unary(torch.cosh),
    "Dropout": _unary(lambda x: x),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "IsNaN": _unary(torch.isnan),
    "Log": _unary(torch.log),
    "Mish": _unary(functional.mish),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Sinh": _unary(torch.sinh),
    "Softplus": _unary(lambda x: functional.softplus(x, threshold=80.0)),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
}


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(*together(inputs[0], inputs[1]))


OPERATORS |= {
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Equal": _binary(torch.eq),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "MatMul": _binary(torch.matmul),
    "Mul": _binary(torch.mul),
    "Or": _binary(torch.logical_or),
    "Pow": _binary(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "Sub": _binary(torch.sub),
    "Xor": _binary(torch.logical_xor),
}


@operator("Div")
def _div(node: Node, inputs: Inputs) -> Any:
    x, y = together(inputs[0], inputs[1])
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@operator("Mod")
def _mod(node: Node, inputs: Inputs) -> Any:
    x, y = together(inputs[0], inputs[1])
    return torch.fmod(x, y) if node.get("fmod", 0) else torch.remainder(x, y)


@operator("Max", "Min", "Sum", "Mean")
def _several(node: Node, inputs: Inputs) -> Any:
    step = {"Max": torch.maximum, "Min": torch.minimum}.get(node.op, torch.add)
    total = reduce(step, together(*inputs))
    return total / len(inputs) if node.op == "Mean" else total


@operator("LeakyRelu")
def _leaky_relu(node: Node, inputs: Inputs) -> Any:
    return functional.leaky_relu(inputs[0], node.get("alpha", 0.01))


@operator("PRelu")
def _prelu(node: Node, inputs: Inputs) -> Any:
    x, slope = inputs
    # Unlike where, this has one gradient at 0 whatever the slope.
    return torch.relu(x) - slope * torch.relu(-x)


@operator("Elu")
def _elu(node: Node, inputs: Inputs) -> Any:
    return functional.elu(inputs[0], node.get("alpha", 1.0))


@operator("Celu")
def _celu(node: Node, inputs: Inputs) -> Any:
    return functional.celu(inputs[0], node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, inputs: Inputs) -> Any:
    # The defaults are the standard's, which torch rounds to another digit.
    alpha = node.get("alpha", 1.67326319217681884765625)
    return node.get("gamma", 1.05070102214813232421875) * functional.elu(inputs[0], alpha)


@operator("Gelu")
def _gelu(node: Node, inputs: Inputs) -> Any:
    return functional.gelu(inputs[0], approximate=node.get("approximate", "none"))


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, inputs: Inputs) -> Any:
    return torch.clamp(node.get("alpha", 0.2) * inputs[0] + node.get("beta", 0.5), 0, 1)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node, inputs: Inputs) -> Any:
    return functional.threshold(inputs[0], node.get("alpha", 1.0), 0.0)


@operator("Swish")
def _swish(node: Node, inputs: Inputs) -> Any:
    return inputs[0] * torch.sigmoid(node.get("alpha", 1.0) * inputs[0])


@operator("Clip")
def _clip(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    if node.version < 11:
        return torch.clamp(x, node.get("min", -torch.inf), node.get("max", torch.inf))
    low, high = given(inputs, 1), given(inputs, 2)
    x = x if low is None else torch.clamp(x, min=low.to(x.device))
    return x if high is None else torch.clamp(x, max=high.to(x.device))


@operator("Where")
def _where(node: Node, inputs: Inputs) -> Any:
    return torch.where(*together(*inputs))


@operator("Cast", "CastLike")
def _cast(node: Node, inputs: Inputs) -> Any:
    wanted = node.get("to") if node.op == "Cast" else inputs[1].dtype
    if not isinstance(wanted, torch.dtype):
        raise UnsupportedError(f"{node.op} to type {wanted}")
    return inputs[0].to(wanted)


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node, inputs: Inputs) -> Any:
    x, old = inputs[0], node.version < 13
    axis = node.get("axis", 1 if old else -1)
    function = torch.softmax if node.op == "Softmax" else torch.log_softmax
    # Before opset 13 all axes from this one on are one.
    return function(x.flatten(axis), axis).reshape(x.shape) if old else function(x, axis)


@operator("Gemm")
def _gemm(node: Node, inputs: Inputs) -> Any:
    a, b, c = inputs[0], inputs[1], given(inputs, 2)
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    out = a @ b if alpha == 1 else alpha * (a @ b)
    return out if c is None else out + (c if beta == 1 else beta * c)


@operator("Einsum")
def _einsum(node: Node, inputs: Inputs) -> Any:
    return torch.einsum(node.get("equation"), *inputs)


_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


@operator(*_REDUCTIONS)
def _reduction(node: Node, inputs: Inputs) -> Any:
    x, axes = inputs[0], setting(node, "axes", inputs, 1)
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    axes = axes or list(range(x.ndim))
    return _REDUCTIONS[node.op](x, axes, bool(node.get("keepdims", 1)))


@operator("ReduceProd")
def _reduce_prod(node: Node, inputs: Inputs) -> Any:
    x, axes = inputs[0], setting(node, "axes", inputs, 1)
    for axis in axes or range(x.ndim):
        x = x.prod(axis, keepdim=True)
    return x if node.get("keepdims", 1) else x.squeeze(tuple(axes or range(x.ndim)))


@operator("ArgMax", "ArgMin")
def _argument(node: Node, inputs: Inputs) -> Any:
    node.only("select_last_index", 0)
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    return function(inputs[0], node.get("axis", 0), bool(node.get("keepdims", 1)))


@operator("CumSum")
def _cumsum(node: Node, inputs: Inputs) -> Any:
    node.only("exclusive", 0)
    node.only("reverse", 0)
    return torch.cumsum(inputs[0], ints(inputs[1])[0])


@operator("ai.onnx.ml.Scaler")
def _scaler(node: Node, inputs: Inputs) -> Any:
    x = inputs[0].to(torch.float32)
    return (x - x.new_tensor(node.get("offset"))) * x.new_tensor(node.get("scale"))


@operator("ai.onnx.ml.Normalizer")
def _normalizer(node: Node, inputs: Inputs) -> Any:
    x, norm = inputs[0].to(torch.float32), node.get("norm", "MAX")
    node.only("norm", "L1", "L2")
    size = torch.linalg.vector_norm(x, 1 if norm == "L1" else 2, 1, keepdim=True)
    return x / size.clamp_min(torch.finfo(x.dtype).tiny)


@operator("ai.onnx.ml.LinearRegressor")
def _linear_regressor(node: Node, inputs: Inputs) -> Any:
    node.only("post_transform", "NONE")
    return _affine(node, inputs[0], node.get("targets", 1))


@operator("ai.onnx.ml.LinearClassifier")
def _linear_classifier(node: Node, inputs: Inputs) -> Any:
    node.only("post_transform", "NONE", "SOFTMAX", "LOGISTIC")
    classes = len(node.get("classlabels_ints") or node.get("classlabels_strings"))
    scores = _affine(node, inputs[0], classes)
    if node.get("post_transform") == "SOFTMAX":
        scores = scores.softmax(1)
    elif node.get("post_transform") == "LOGISTIC":
        scores = scores.sigmoid()
    return scores.argmax(1), scores


def _affine(node: Node, x: Tensor, outputs: int) -> Tensor:
    x = x.to(torch.float32)
    weight = x.new_tensor(node.get("coefficients")).reshape(outputs, -1)
    intercepts = node.get("intercepts")
    return x @ weight.T + (x.new_tensor(intercepts) if intercepts else 0)
