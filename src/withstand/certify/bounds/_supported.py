"""What bounds pass through: torch's modules, functions and methods, by the operation they are."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..._errors import ModelError
from ._activations import SIGMOID, TANH, Rectifier
from ._builder import Builder, Value
from ._linear import Convolution, Linear
from ._maxpool import MaxPool
from ._moves import Add, BatchNorm, Nonnegative, Reshape, Scale, Slopes
from ._operations import Shape

SUPPORTED: dict[Any, Callable[..., Value]] = {}
"""By module class, function or name of a method."""


def _for(*keys: Any) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    def register(handler: Callable[..., Value]) -> Callable[..., Value]:
        SUPPORTED.update(dict.fromkeys(keys, handler))
        return handler

    return register


def _axes(value: int | Shape, count: int) -> Shape:
    return (value,) * count if isinstance(value, int) else tuple(value)


@_for(nn.Linear)
def _linear(graph: Builder, x: Value, module: nn.Linear) -> Value:
    return graph.add(Linear(module.weight, module.bias), x)


@_for(functional.linear)
def _linear_function(graph: Builder, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    return graph.add(Linear(weight, bias), x)


@_for(nn.Conv1d, nn.Conv2d)
def _convolution(graph: Builder, x: Value, module: nn.Conv1d | nn.Conv2d) -> Value:
    if module.padding_mode != "zeros":
        raise ModelError(f"padding mode is {module.padding_mode!r}; bounds need zeros")
    return _convolve(
        graph,
        x,
        module.weight,
        module.bias,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )


@_for(torch.conv1d, torch.conv2d, functional.conv1d, functional.conv2d)
def _convolve(
    graph: Builder,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Shape = 1,
    padding: int | str | Shape = 0,
    dilation: int | Shape = 1,
    groups: int = 1,
) -> Value:
    count = weight.ndim - 2
    stride, dilation = _axes(stride, count), _axes(dilation, count)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(span % 2 for span in spans):
            raise ModelError("padding 'same' of an even kernel is not supported; pad by a number")
        padding = tuple(span // 2 for span in spans)
    padding = 0 if isinstance(padding, str) else padding
    padding = _axes(padding, count)
    if count == 2:
        return graph.add(Convolution(weight, bias, stride, padding, dilation, groups), x)
    layer = Convolution(weight, bias, (1, *stride), (0, *padding), (1, *dilation), groups)
    return _flat(graph, graph.add(layer, _row(graph, x)))


def _row(graph: Builder, x: Value) -> Value:
    """A series (C, L) as a picture of one row (C, 1, L)."""
    return graph.add(Reshape((x.shape[0], 1, *x.shape[1:])), x)


def _flat(graph: Builder, x: Value) -> Value:
    return graph.add(Reshape((x.shape[0], *x.shape[2:])), x)


@_for(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(graph: Builder, x: Value, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Value:
    if module.running_var is None:
        raise ModelError("batch norm without running statistics depends on the batch")
    return graph.add(BatchNorm(module, len(x.shape) - 1), x)


@_for(nn.ReLU, functional.relu, torch.relu, "relu", "relu_", functional.relu_, torch.relu_)
def _relu(graph: Builder, x: Value, *_: Any, **__: Any) -> Value:
    return graph.add(Rectifier(), x)


@_for(nn.LeakyReLU)
def _leaky_module(graph: Builder, x: Value, module: nn.LeakyReLU) -> Value:
    return _leaky(graph, x, module.negative_slope)


@_for(functional.leaky_relu)
def _leaky(graph: Builder, x: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    if not 0 <= negative_slope <= 1:
        raise ModelError(f"negative slope is {negative_slope:g}; bounds need one from 0 to 1")
    return graph.add(Rectifier(negative_slope), x)


@_for(nn.PReLU)
def _prelu_module(graph: Builder, x: Value, module: nn.PReLU) -> Value:
    return _prelu(graph, x, module.weight)


@_for(functional.prelu, torch.prelu, "prelu")
def _prelu(graph: Builder, x: Value, weight: Tensor) -> Value:
    # A share of x and the rest of its ReLU, for slopes of any sign and size.
    axes = max(len(x.shape) - 1, 0)
    share = graph.add(Slopes(weight, axes), x)
    rest = graph.add(Slopes(weight, axes, lacking=True), graph.add(Rectifier(), x))
    return graph.add(Add(), share, rest)


@_for(nn.Hardtanh, nn.ReLU6)
def _hardtanh_module(graph: Builder, x: Value, module: nn.Hardtanh) -> Value:
    return _clamp(graph, x, module.min_val, module.max_val)


@_for(functional.relu6)
def _relu6(graph: Builder, x: Value, inplace: bool = False) -> Value:
    return _clamp(graph, x, 0.0, 6.0)


@_for(functional.hardtanh)
def _hardtanh(
    graph: Builder, x: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Value:
    return _clamp(graph, x, min_val, max_val)


@_for(torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_")
@_for(torch.clamp_min, "clamp_min", "clamp_min_")
def _clamp(graph: Builder, x: Value, min: Any = None, max: Any = None) -> Value:
    for end, side in ((min, 1.0), (max, -1.0)):
        if end is not None:
            # min + relu(x - min), and max - relu(max - x).
            end = _constant(x, end)
            x = graph.add(Rectifier(), _scaled(graph, x, side, -side * end))
            x = _scaled(graph, x, side, end)
    return x


@_for(torch.clamp_max, "clamp_max", "clamp_max_")
def _clamp_max(graph: Builder, x: Value, max: Any) -> Value:
    return _clamp(graph, x, None, max)


def _constant(x: Value, end: Any) -> Tensor:
    """Where values like x are cut off: a constant of finite numbers."""
    if isinstance(end, Value) or not bool(torch.as_tensor(end).isfinite().all()):
        raise ModelError("values are cut off at no finite constant; bounds need one, or None")
    return torch.as_tensor(end, dtype=x.example.dtype, device=x.example.device)


@_for(nn.Sigmoid, torch.sigmoid, functional.sigmoid, "sigmoid")
def _sigmoid(graph: Builder, x: Value, *_: Any) -> Value:
    return graph.add(SIGMOID, x)


@_for(nn.Tanh, torch.tanh, functional.tanh, "tanh")
def _tanh(graph: Builder, x: Value, *_: Any) -> Value:
    return graph.add(TANH, x)


@_for(functional.dropout)
def _dropout(
    graph: Builder, x: Value, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    if training:
        raise ModelError("dropout that is always on depends on chance; give it self.training")
    return x


@_for(
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, "contiguous"),
    *("clone", "float", "double", torch.clone),
)
def _nothing(graph: Builder, x: Value, *_: Any, **__: Any) -> Value:
    return x


@_for(nn.MaxPool1d, nn.MaxPool2d)
def _max_pool_module(graph: Builder, x: Value, module: nn.MaxPool2d) -> Value:
    return _max_pool(
        graph,
        x,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        ceil_mode=module.ceil_mode,
    )


@_for(functional.max_pool1d, functional.max_pool2d, torch.max_pool1d, torch.max_pool2d)
def _max_pool(
    graph: Builder,
    x: Value,
    kernel_size: int | Shape,
    stride: int | Shape | None = None,
    padding: int | Shape = 0,
    dilation: int | Shape = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if ceil_mode or return_indices:
        raise ModelError("max pooling with ceil_mode or return_indices is not supported")
    count = len(x.shape) - 1
    kernel, stride = _axes(kernel_size, count), _axes(stride or kernel_size, count)
    padding, dilation = _axes(padding, count), _axes(dilation, count)
    if count == 2:
        return graph.add(MaxPool.over(x.shape, kernel, stride, padding, dilation), x)
    x = _row(graph, x)
    pool = MaxPool.over(x.shape, (1, *kernel), (1, *stride), (0, *padding), (1, *dilation))
    return _flat(graph, graph.add(pool, x))


@_for(
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.ZeroPad1d, nn.ZeroPad2d),
)
def _pooling_module(graph: Builder, x: Value, module: nn.Module) -> Value:
    # Its own function of a tensor, without parameters.
    return _sum(graph, x, module.forward, getattr(module, "kernel_size", 1))


def _sum(graph: Builder, x: Value, function: Callable[..., Tensor], kernel: int | Shape) -> Value:
    """Sums of the numbers in windows; adaptive ones are at most four times the even share."""
    weights = function(torch.ones_like(x.example))
    if bool((weights < 0).any()):
        raise ModelError("pooling divides by a number below 0; bounds need one above")
    even = -(-x.example.numel() // weights.numel())
    terms = max(4 * even, prod(_axes(kernel, len(x.shape) - 1)))
    return graph.add(Nonnegative(function, terms), x)


def _summing(function: Callable[..., Tensor], pooling: bool) -> Callable[..., Value]:
    def handler(graph: Builder, x: Value, *args: Any, **kwargs: Any) -> Value:
        kernel = kwargs.get("kernel_size", args[0] if args else 1) if pooling else 1
        return _sum(graph, x, lambda t: function(t, *args, **kwargs), kernel)

    return handler


def _moving(function: Callable[..., Tensor]) -> Callable[..., Value]:
    def handler(graph: Builder, x: Value, *args: Any, **kwargs: Any) -> Value:
        return graph.add(Nonnegative(lambda t: function(t, *args, **kwargs)), x)

    return handler


_SUMS: dict[Callable[..., Tensor], tuple[Any, ...]] = {
    functional.avg_pool1d: (functional.avg_pool1d,),
    functional.avg_pool2d: (functional.avg_pool2d,),
    functional.adaptive_avg_pool1d: (functional.adaptive_avg_pool1d,),
    functional.adaptive_avg_pool2d: (functional.adaptive_avg_pool2d,),
    torch.mean: ("mean", torch.mean),
    torch.sum: ("sum", torch.sum),
}
_MOVES: dict[Callable[..., Tensor], tuple[Any, ...]] = {
    Tensor.permute: ("permute", torch.permute),
    torch.transpose: ("transpose", torch.transpose),
    operator.getitem: (operator.getitem,),
    Tensor.expand: ("expand",),
}
for _function, _keys in _SUMS.items():
    _for(*_keys)(_summing(_function, "avg_pool" in _function.__name__))
for _function, _keys in _MOVES.items():
    _for(*_keys)(_moving(_function))


def _reshaping(function: Callable[..., Tensor]) -> Callable[..., Value]:
    def handler(graph: Builder, x: Value, *args: Any, **kwargs: Any) -> Value:
        result = function(x.example, *args, **kwargs)
        if len(result) != len(x.example):
            raise ModelError(
                f"a reshape turns {tuple(x.example.shape)} into {tuple(result.shape)}; the first "
                "axis must stay the samples'"
            )
        return graph.add(Reshape(tuple(result.shape[1:])), x)

    return handler


_RESHAPES: dict[str, Callable[..., Tensor]] = {
    "reshape": Tensor.reshape,
    "view": Tensor.reshape,
    "flatten": Tensor.flatten,
    "unflatten": Tensor.unflatten,
    "squeeze": Tensor.squeeze,
    "unsqueeze": Tensor.unsqueeze,
}
for _name, _function in _RESHAPES.items():
    _for(_name, getattr(torch, _name, _name))(_reshaping(_function))


@_for(nn.Flatten, nn.Unflatten)
def _reshape_module(graph: Builder, x: Value, module: nn.Module) -> Value:
    return _reshaping(module.forward)(graph, x)


@_for(functional.pad)
def _pad(
    graph: Builder, x: Value, pad: Shape, mode: str = "constant", value: float | None = None
) -> Value:
    if mode != "constant" or value:
        raise ModelError(f"padding is {mode} {value}; bounds need zeros")
    return graph.add(Nonnegative(lambda t: functional.pad(t, pad)), x)


@_for(torch.cat, torch.concat)
def _cat(graph: Builder, tensors: list[Value], dim: int = 0) -> Value:
    if not all(isinstance(t, Value) for t in tensors):
        raise ModelError("constants cannot be joined to a tensor; bounds need values of the input")
    return graph.add(Nonnegative(lambda *parts: torch.cat(parts, dim)), *tensors)


def _scaled(graph: Builder, x: Value, factor: Any, shift: Any) -> Value:
    """x * factor + shift for constants that broadcast."""
    factor, shift = (
        torch.as_tensor(c, dtype=x.example.dtype, device=x.example.device) for c in (factor, shift)
    )
    for constant in (factor, shift):
        if constant.ndim == x.example.ndim and len(constant) != 1:
            raise ModelError("a constant differs from sample to sample; it must be one for all")
    widened = (x.example + factor + shift).shape[1:]
    if widened != x.shape:
        x = graph.add(Nonnegative(lambda t: t.expand(len(t), *widened)), x)
    return graph.add(Scale(factor, shift), x)


@_for(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(graph: Builder, a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        if a.shape != b.shape:
            raise ModelError(f"a sum of shapes {a.shape} and {b.shape} is not supported")
        return graph.add(Add(), a, b)
    return _scaled(graph, a, 1.0, b) if isinstance(a, Value) else _scaled(graph, b, 1.0, a)


@_for(operator.sub, operator.isub, torch.sub, "sub", "sub_")
def _subtract(graph: Builder, a: Any, b: Any) -> Value:
    if isinstance(b, Value):
        return _add(graph, a, _scaled(graph, b, -1.0, 0.0))
    return _scaled(graph, a, 1.0, -torch.as_tensor(b))


@_for(operator.neg, torch.neg, "neg")
def _negate(graph: Builder, a: Value) -> Value:
    return _scaled(graph, a, -1.0, 0.0)


@_for(operator.mul, operator.imul, torch.mul, "mul", "mul_")
def _multiply(graph: Builder, a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        raise ModelError("a product of two values of the input is not supported by bounds")
    return _scaled(graph, a, b, 0.0) if isinstance(a, Value) else _scaled(graph, b, a, 0.0)


@_for(operator.matmul, torch.matmul, torch.mm, "matmul", "mm")
def _product(graph: Builder, a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        raise ModelError("a product of two values of the input is not supported by bounds")
    if not isinstance(a, Value) or b.ndim != 2:
        raise ModelError("bounds need matrix products as x @ constant, the constant of two axes")
    return graph.add(Linear(b, turned=True), a)


@_for(operator.truediv, torch.div, "div", "div_")
def _divide(graph: Builder, a: Any, b: Any) -> Value:
    if isinstance(b, Value):
        raise ModelError("a division by a value of the input is not supported by bounds")
    return _scaled(graph, a, 1 / torch.as_tensor(b, dtype=torch.float64), 0.0)
