"""Differentiable stand-ins for what torch computes without a gradient: one rule a function.

A rule takes the call's arguments, whole numbers and Booleans among them as attached floats, and the
value it really gave; it returns a float of the value's shape whose gradient is of use, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Rule = Callable[..., Any]
_SHARP = 0.1


class Straight(torch.autograd.Function):
    """The first argument's value with the second's gradient (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, soft: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, grads[0]


def straight(value: Tensor, soft: Tensor) -> Tensor:
    """value (...), which may be whole numbers, as a float with the gradient of soft (...)."""
    out: Tensor = Straight.apply(value.detach().to(soft.dtype), soft)  # type: ignore[no-untyped-call]
    return out


def _cast(value: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x.to(value.dtype) if value.is_floating_point() else x


def _above(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Tensor:
    # A step that is too steep moves only what lies on it, one too flat moves all alike.
    gap = torch.as_tensor(a - b)
    rows = tuple(range(1, gap.ndim)) or (0,)
    seen = gap.detach()
    width = _SHARP * (seen.amax(rows, keepdim=True) - seen.amin(rows, keepdim=True))
    out: Tensor = (gap / torch.where(width > 0, width, _SHARP)).sigmoid()
    return out


def _below(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Tensor:
    return _above(value, b, a)


def _equal(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    # Wide enough to rise from one number to the next.
    return (1 - (a - b).abs() / 2).clamp_min(0)


def _unequal(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    return 1 - _equal(value, a, b)


def _not(value: Tensor, a: Tensor, **kwargs: Any) -> Tensor:
    return 1 - a if value.dtype == torch.bool else -a


def _and(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    # Of whole numbers a mask mostly drops the last bits: the number is the smooth part.
    return a * b if value.dtype == torch.bool else _attached(a, b)


def _or(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    return a + b - a * b if value.dtype == torch.bool else _attached(a, b)


def _attached(a: Any, b: Any) -> Any:
    return a if isinstance(a, Tensor) and a.requires_grad else b


def _right(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    return a / 2**b


def _left(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    return a * 2**b


def _over(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    return a / b


def _under(value: Tensor, a: Any, b: Any, **kwargs: Any) -> Any:
    return b / a


def _choice(value: Tensor, s: Any, a: Any = None, b: Any = None, **kwargs: Any) -> Any:
    return None if a is None or b is None else s * a + (1 - s) * b


def _filled(value: Tensor, x: Any, s: Any, fill: Any) -> Any:
    return x * (1 - s) + s * fill


def _one_hot(value: Tensor, s: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    # In all it stays one, or the last classes would pull the wrong way.
    gap = s[..., None] - torch.arange(value.shape[-1], device=s.device)
    return (-gap.square() / 2).softmax(-1)


def _bucket(value: Tensor, x: Tensor, edges: Tensor, **kwargs: Any) -> Tensor | None:
    if edges.ndim != 1 or len(edges) < 2:
        return None
    number = value.clamp(1, len(edges) - 1)
    width = edges[number] - edges[number - 1]
    return x / torch.where(width > 0, width, 1)


def _sorted(value: Tensor, edges: Tensor, x: Tensor, **kwargs: Any) -> Tensor | None:
    return _bucket(value, x, edges)


def _largest(value: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor | None:
    if dim is None:
        return None
    spread = x.detach().std(dim, keepdim=True).clamp_min(1e-12)
    place = torch.arange(x.shape[dim], device=x.device, dtype=x.dtype)
    share = (x / (_SHARP * spread)).softmax(dim).movedim(dim, -1)
    soft = (share * place).sum(-1)
    return soft.unsqueeze(dim) if keepdim else soft


def _smallest(value: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor | None:
    return _largest(value, -x, dim, keepdim)


def _looked_up(value: Tensor, table: Tensor, s: Any) -> Tensor | None:
    """Between an entry and its neighbours the table is a line."""
    if not isinstance(s, Tensor) or not s.requires_grad or not table.is_floating_point():
        return None
    place = s.detach().round().long()
    if value.shape != (*s.shape, *table.shape[1:]) or len(table) < 2:
        return None
    after, before = (place + 1).clamp_max(len(table) - 1), (place - 1).clamp_min(0)
    slope = (table[after] - table[before]).detach()
    steps = (after - before).reshape(*s.shape, *(1,) * (table.ndim - 1))
    return slope / steps * s.reshape(steps.shape)


def _embedded(value: Tensor, s: Any, table: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    return _looked_up(value, table, s)


_GROUPS: dict[Rule, str] = {
    _cast: "to type type_as float double half bfloat16 int long short char byte bool",
    _above: "gt ge greater greater_equal heaviside __gt__ __ge__",
    _below: "lt le less less_equal __lt__ __le__",
    _equal: "eq __eq__",
    _unequal: "ne not_equal __ne__",
    _not: "__invert__ logical_not bitwise_not",
    _and: "__and__ __rand__ logical_and bitwise_and",
    _or: "__or__ __ror__ logical_or bitwise_or",
    _right: "__rshift__ bitwise_right_shift",
    _left: "__lshift__ bitwise_left_shift",
    _over: "floor_divide __floordiv__",
    _under: "__rfloordiv__",
    _choice: "where",
    _filled: "masked_fill",
    _one_hot: "one_hot",
    _bucket: "bucketize",
    _sorted: "searchsorted",
    _largest: "argmax",
    _smallest: "argmin",
    _looked_up: "__getitem__",
    _embedded: "embedding",
}
RULES = {name: rule for rule, names in _GROUPS.items() for name in names.split()}
