"""ONNX operators on torch: convolutions, pooling, normalisation, resizing."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ._onnx_ops import Inputs, Node, UnsupportedError, given, operator

_CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_MAX = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


class _Window(NamedTuple):
    """A sliding window over the spatial axes, with the padding before and after each."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]

    @property
    def span(self) -> list[int]:
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    @property
    def even(self) -> bool:
        return self.before == self.after

    def flat(self) -> list[int]:
        pairs = list(zip(self.before, self.after, strict=True))[::-1]
        return [side for pair in pairs for side in pair]


def _window(node: Node, x: Tensor, kernel: list[int]) -> _Window:
    rank = len(kernel)
    if not 1 <= rank <= 3 or x.ndim != rank + 2:
        raise UnsupportedError(f"{node.op} over {rank} axes of an input of rank {x.ndim}")
    stride = node.get("strides") or [1] * rank
    dilation = node.get("dilations") or [1] * rank
    pads = node.get("pads") or [0] * (2 * rank)
    window = _Window(kernel, stride, dilation, pads[:rank], pads[rank:])
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return window
    node.only("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    wanted = [
        max((-(-size // step) - 1) * step + span - size, 0)
        for size, step, span in zip(x.shape[2:], stride, window.span, strict=True)
    ]
    less, more = [w // 2 for w in wanted], [w - w // 2 for w in wanted]
    before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    return window._replace(before=before, after=after)


@operator("Conv")
def _conv(node: Node, inputs: Inputs) -> Any:
    return convolution(node, inputs[0], inputs[1], given(inputs, 2))


def convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution (B, C, ...) with the attributes of a node."""
    window = _window(node, x, list(weight.shape[2:]))
    padding = window.before
    if not window.even:
        x, padding = functional.pad(x, window.flat()), [0] * len(padding)
    convolve = _CONV[len(padding) - 1]
    return convolve(x, weight, bias, window.stride, padding, window.dilation, node.get("group", 1))


@operator("ConvTranspose")
def _conv_transpose(node: Node, inputs: Inputs) -> Any:
    x, weight, bias = inputs[0], inputs[1], given(inputs, 2)
    rank = weight.ndim - 2
    node.only("auto_pad", "NOTSET", "VALID")
    if node.get("output_shape"):
        raise UnsupportedError("ConvTranspose with output_shape")
    stride, dilation = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
    pads, extra = node.get("pads") or [0] * 2 * rank, node.get("output_padding") or [0] * rank
    convolve = _TRANSPOSED[rank - 1]
    out = convolve(x, weight, None, stride, groups=node.get("group", 1), dilation=dilation)
    # Negative padding cuts off; the bias comes last since it reaches what padding adds.
    flat = [
        side
        for axis in reversed(range(rank))
        for side in (-pads[axis], extra[axis] - pads[rank + axis])
    ]
    out = functional.pad(out, flat) if any(flat) else out
    return out if bias is None else out + bias.reshape(-1, *(1,) * rank)


def _ceiling(node: Node, x: Tensor, window: _Window) -> list[int]:
    """How far a rounded-up last window reaches beyond the padding, for each axis."""
    reach = []
    for size, step, span, before, after in zip(
        x.shape[2:], window.stride, window.span, window.before, window.after, strict=True
    ):
        free = size + before + after - span
        count = -(-free // step) + 1 if node.get("ceil_mode", 0) else free // step + 1
        # A window that would begin in the padding behind is left out.
        count -= (count - 1) * step >= size + before
        reach.append(max((count - 1) * step + span - (size + before + after), 0))
    return reach


@operator("MaxPool")
def _max_pool(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    if len(node.outputs) > 1:
        raise UnsupportedError("MaxPool with indices")
    window = _window(node, x, node.get("kernel_shape"))
    further = _ceiling(node, x, window)
    window = window._replace(after=[a + b for a, b in zip(window.after, further, strict=True)])
    if any(window.flat()):
        x = functional.pad(x, window.flat(), value=-torch.inf)
    pool = _MAX[len(window.kernel) - 1]
    return pool(x, window.kernel, window.stride, 0, window.dilation)


@operator("AveragePool")
def _average_pool(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    window = _window(node, x, node.get("kernel_shape"))
    if any(step != 1 for step in window.dilation):
        raise UnsupportedError("AveragePool with dilations")
    further = _ceiling(node, x, window)
    pool = _AVERAGE[len(window.kernel) - 1]
    if not any(window.flat()) and not any(further):
        return pool(x, window.kernel, window.stride)
    beyond = [side for extra in reversed(further) for side in (0, extra)]
    counted = float(node.get("count_include_pad", 0))
    ones = functional.pad(torch.ones_like(x[:1, :1]), window.flat(), value=counted)
    ones, x = functional.pad(ones, beyond), functional.pad(x, window.flat())
    total = pool(functional.pad(x, beyond), window.kernel, window.stride)
    return total / pool(ones, window.kernel, window.stride)


@operator("GlobalAveragePool")
def _global_average(node: Node, inputs: Inputs) -> Any:
    x: Tensor = inputs[0]
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def _global_max(node: Node, inputs: Inputs) -> Any:
    x: Tensor = inputs[0]
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@operator("BatchNormalization")
def _batch_norm(node: Node, inputs: Inputs) -> Any:
    x, scale, bias, mean, variance = inputs
    if node.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise UnsupportedError("BatchNormalization in training mode")
    # The statistics have no gradient, and torch refuses to be asked for one.
    mean, variance = mean.detach(), variance.detach()
    return functional.batch_norm(
        x, mean, variance, scale, bias, training=False, eps=node.get("epsilon", 1e-5)
    )


@operator("LayerNormalization")
def _layer_norm(node: Node, inputs: Inputs) -> Any:
    x, scale, bias = inputs[0], inputs[1], given(inputs, 2)
    if len([name for name in node.outputs if name]) > 1:
        raise UnsupportedError("LayerNormalization with its mean")
    axis = node.get("axis", -1)
    out = functional.layer_norm(x, x.shape[axis:], eps=node.get("epsilon", 1e-5)) * scale
    return out if bias is None else out + bias


@operator("RMSNormalization")
def _rms_norm(node: Node, inputs: Inputs) -> Any:
    x, scale = inputs
    axes = list(range(node.get("axis", -1) % x.ndim, x.ndim))
    power = x.square().mean(axes, keepdim=True)
    return x / torch.sqrt(power + node.get("epsilon", 1e-5)) * scale


@operator("InstanceNormalization")
def _instance_norm(node: Node, inputs: Inputs) -> Any:
    x, scale, bias = inputs
    axes, each = list(range(2, x.ndim)), (-1, *(1,) * (x.ndim - 2))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    normal = (x - mean) / torch.sqrt(variance + node.get("epsilon", 1e-5))
    return normal * scale.reshape(each) + bias.reshape(each)


@operator("GroupNormalization")
def _group_norm(node: Node, inputs: Inputs) -> Any:
    x, scale, bias = inputs
    groups, channels = node.get("num_groups"), x.shape[1]
    # Before opset 21 there is one scale for each group.
    scale, bias = (v.repeat_interleave(channels // len(v)) for v in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@operator("LRN")
def _local_response(node: Node, inputs: Inputs) -> Any:
    size, x = node.get("size"), inputs[0]
    squares = x.square().movedim(1, -1).flatten(1, -2)
    squares = functional.pad(squares, [(size - 1) // 2, size // 2])
    sums = functional.avg_pool1d(squares, size, 1) * node.get("alpha", 1e-4)
    sums = sums.unflatten(1, x.movedim(1, -1).shape[1:-1]).movedim(-1, 1)
    return x / (node.get("bias", 1.0) + sums) ** node.get("beta", 0.75)


@operator("Upsample")
def _upsample(node: Node, inputs: Inputs) -> Any:
    scales = node.get("scales") or inputs[1].tolist()
    how = {
        "mode": node.get("mode", "nearest"),
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    }
    return _resized(Node("Upsample", attributes=how), inputs[0], scales, None)


@operator("Resize")
def _resize(node: Node, inputs: Inputs) -> Any:
    x = inputs[0]
    node.only("antialias", 0)
    node.only("exclude_outside", 0)
    node.only("keep_aspect_ratio_policy", "stretch")
    if node.version < 11:
        return _upsample(node, inputs)
    scales, sizes = given(inputs, 2), given(inputs, 3)
    axes = [axis % x.ndim for axis in node.get("axes") or range(x.ndim)]
    wanted: list[int] = list(x.shape)
    factors = [1.0] * x.ndim
    if sizes is not None and sizes.numel():
        for axis, size in zip(axes, sizes.tolist(), strict=True):
            wanted[axis], factors[axis] = size, size / x.shape[axis]
        return _resized(node, x, factors, wanted)
    for axis, factor in zip(axes, scales.tolist(), strict=True):
        factors[axis] = factor
    return _resized(node, x, factors, None)


def _resized(node: Node, x: Tensor, factors: list[float], sizes: list[int] | None) -> Tensor:
    """One axis after the other, since every mode is a product over the axes."""
    mode = node.get("mode", "nearest")
    for axis, factor in enumerate(factors):
        size = math.floor(x.shape[axis] * factor) if sizes is None else sizes[axis]
        if factor == 1 and size == x.shape[axis]:
            continue
        at = _coordinates(node, x.shape[axis], size, factor).to(x.device)
        last = x.shape[axis] - 1
        if mode == "nearest":
            x = x.index_select(axis, _rounded(node, at).clamp(0, last).to(torch.int64))
            continue
        floor = at.floor()
        rest, shape = (at - floor).to(x.dtype), [-1 if k == axis else 1 for k in range(x.ndim)]
        if mode == "linear":
            weights = [1 - rest, rest]
        elif mode == "cubic":
            weights = _cubic(rest, node.get("cubic_coeff_a", -0.75))
        else:
            raise UnsupportedError(f"{node.op} with mode {mode}")
        first = floor.to(torch.int64) - (len(weights) - 2) // 2
        x = torch.stack(
            [
                x.index_select(axis, (first + k).clamp(0, last)) * weight.reshape(shape)
                for k, weight in enumerate(weights)
            ]
        ).sum(0)
    return x


def _coordinates(node: Node, size: int, wanted: int, factor: float) -> Tensor:
    at = torch.arange(wanted, dtype=torch.float32)
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "asymmetric":
        return at / factor
    if mode == "align_corners":
        return at * ((size - 1) / (wanted - 1)) if wanted > 1 else at * 0
    if mode == "pytorch_half_pixel" and wanted == 1:
        return at * 0
    if mode not in ("half_pixel", "pytorch_half_pixel"):
        raise UnsupportedError(f"{node.op} with coordinate_transformation_mode {mode}")
    return (at + 0.5) / factor - 0.5


def _rounded(node: Node, at: Tensor) -> Tensor:
    mode = node.get("nearest_mode", "round_prefer_floor")
    if mode == "round_prefer_floor":
        return torch.ceil(at - 0.5)
    if mode == "round_prefer_ceil":
        return torch.floor(at + 0.5)
    return torch.ceil(at) if mode == "ceil" else torch.floor(at)


def _cubic(rest: Tensor, a: float) -> list[Tensor]:
    """Weights of the four neighbours at the distances 1 + rest, rest, 1 - rest and 2 - rest."""

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(1 + rest), near(rest), near(1 - rest), far(2 - rest)]
