"""What cuts a tensor off from its gradient, found while a module runs, and what joins it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function
from torch.overrides import TorchFunctionMode

from ._soft import RULES, Straight, straight

_LEAVES = {"numpy", "__array__", "tolist", "item", "__float__", "__int__", "__bool__", "__index__"}
_SAWTEETH = {"frac", "fmod", "remainder", "__mod__"}
_OPERATED = "add sub mul truediv floordiv mod pow and or xor lshift rshift"
_STAIRS = {"floor_divide", "__floordiv__", "__rfloordiv__", "heaviside"}
_OPERATORS = {f"__{name}__" for name in _OPERATED.split()}
_FLAT = ("Round", "Floor", "Ceil", "Trunc", "Sign", "Sgn")
_ALIKE = 0.5


class Reconnecting(TorchFunctionMode):
    """Every call of torch inside is recorded for autograd, and a cut tensor gets a surrogate.

    x: the input (B, ...), attached. known: tensors that are no changed input, such as weights.
    Whole numbers and Booleans have a shade, an attached float of the same values: what is done to
    the numbers is done to the shade, and a float that comes of it has the shade's gradient.
    instead: of a cut tensor, what it came from and the line through that, another in its place.
    """

    def __init__(
        self, x: Tensor, known: Iterable[Tensor], instead: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__()
        self.left, self.instead = {x.shape: x}, instead
        # Kept with the tensors themselves, because an id is free again when its tensor is gone.
        self.shades: dict[int, tuple[Tensor, Tensor]] = {}
        self.joined = {id(t): (t, t._version, t) for t in known}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = _name(func), kwargs or {}
        with _recording():
            if name in _LEAVES:
                return self._leave(func, args, kwargs)
            if name in ("detach", "data") and args[0].requires_grad:
                return args[0].view_as(args[0])
            if name == "detach_" or (name == "detach" and id(args[0]) in self.shades):
                return args[0]
            if (apart := _elsewhere(name)) is not None:
                return self._change(func, apart, args, kwargs)
            return self._call(func, name, args, kwargs)

    def linked(self, tensor: Tensor) -> Tensor:
        """A cut tensor like one that is attached, with a gradient: in each row, a line's slope."""
        apart = not tensor.requires_grad and tensor.is_floating_point()
        if not apart or tensor.shape not in self.left:
            return tensor
        _, version, out = self.joined.get(id(tensor), (tensor, -1, tensor))
        if version != tensor._version:
            out = _joined(tensor, self.left[tensor.shape], self.instead)
            self.joined[id(tensor)] = tensor, tensor._version, out
        return out

    def _shade(self, tensor: Tensor) -> Tensor:
        return self.shades.get(id(tensor), (tensor, tensor))[1]

    def _leave(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """To numpy and Python, from where it may come back changed and is known by its shape."""
        tensor = self._shade(args[0])
        if tensor.requires_grad:
            self.left[tensor.shape] = tensor
        return func(args[0].detach(), *args[1:], **kwargs)

    def _call(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        args, kwargs = _mapped(self.linked, args), _mapped(self.linked, kwargs)
        value = func(*args, **kwargs)
        if not isinstance(value, Tensor):
            return value
        if name in _SAWTEETH:
            # The teeth rise where the stairs that they leave over are flat.
            value = value.detach()
            self.joined[id(value)] = value, value._version, value
            return value
        shades = _mapped(self._shade, args)
        if kwargs.get("rounding_mode") is not None:
            name = "floor_divide"
        flat = name in RULES and (name in _STAIRS or not value.requires_grad)
        if not (flat or any(a is not b for a, b in _pairs(args, shades))):
            return value
        soft = _soft(func, name, value, shades, kwargs)
        if soft is None or value is args[0]:
            return value
        shade = straight(value, soft)
        if value.is_floating_point():
            return shade.to(value.dtype)
        self.shades[id(value)] = value, shade
        return value

    def _change(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """In place: what is changed stays the tensor that the caller holds."""
        tensor, rest = args[0], _mapped(self.linked, args[1:])
        shade = self._shade(tensor)
        value = func(tensor, *rest, **kwargs)
        if shade is not tensor:
            soft = _soft(func, name, value, (shade.clone(), *_mapped(self._shade, rest)), kwargs)
            if soft is not None:
                self.shades[id(tensor)] = tensor, straight(tensor, soft)
        return value


def mend(out: Tensor) -> None:
    """Steps in the graph behind out that pass no gradient on pass on the one they get."""
    todo, seen = [out.grad_fn], set()
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [edge[0] for edge in node.next_functions]
        if isinstance(node, BackwardCFunction):
            _mend_custom(node)
        elif node.name().startswith(_FLAT):
            node.register_hook(lambda given, got: got[: len(given)])


def _mend_custom(node: Any) -> None:
    """A user's autograd function, for this one call: its own gradient, unless it has none."""
    known = node._forward_cls
    if known is Straight or isinstance(known, SimpleNamespace):
        return
    shapes = [
        None if to is None else tuple(to._input_metadata[place].shape)
        for to, place in node.next_functions
    ]
    own = known.backward if known.vjp is Function.vjp else known.vjp

    def backward(ctx: Any, *got: Any) -> Any:
        given = own(ctx, *got)
        given = given if isinstance(given, tuple) else (given,)
        if any(isinstance(g, Tensor) and bool((g != 0).any()) for g in given):
            return given
        return tuple(
            got[0] if shape == tuple(got[0].shape) else g
            for g, shape in zip(given, shapes, strict=False)
        )

    node._forward_cls = SimpleNamespace(backward=backward, vjp=Function.vjp)


@contextmanager
def _recording() -> Iterator[None]:
    inference = torch.is_inference_mode_enabled()
    with torch.inference_mode(False) if inference else nullcontext(), torch.enable_grad():
        yield


def _name(func: Any) -> str:
    name = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", "") if name == "__get__" else name


def _elsewhere(name: str) -> str | None:
    """The name of the same function not in place; None for those that are not in place."""
    if name.endswith("__"):
        base = f"__{name[3:]}"
        return base if name.startswith("__i") and base in _OPERATORS else None
    return name[:-1] if name.endswith("_") else None


def _mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_mapped(change, part) for part in value)
    return {k: _mapped(change, v) for k, v in value.items()} if type(value) is dict else value


def _pairs(value: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    if type(value) in (tuple, list):
        for a, b in zip(value, other, strict=True):
            yield from _pairs(a, b)
    else:
        yield value, other


def _soft(
    func: Callable[..., Any], name: str, value: Tensor, shades: Any, kwargs: Any
) -> Tensor | None:
    """What stands in for the value: by a rule, or the same function of the shades."""
    try:
        rule = RULES.get(name)
        soft = func(*shades, **kwargs) if rule is None else rule(value, *shades, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError):
        # A function of whole numbers may know no floats: then the gradient stays cut off.
        return None
    fits = isinstance(soft, Tensor) and soft.requires_grad and soft.shape == value.shape
    return soft if fits else None


def _joined(value: Tensor, source: Tensor, instead: Callable[..., Tensor] | None) -> Tensor:
    """The cut tensor (B, ...) as the line through source (B, ...) in each row that is like it."""
    if value.ndim < 2:
        return value
    a, b = (t.detach().double().flatten(1) for t in (source, value))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    both, own, other = (a * b).sum(1), a.square().sum(1), b.square().sum(1)
    alike = both.abs() >= _ALIKE * (own * other).sqrt()
    if not bool((alike & (own > 0)).any()):
        return value
    slope = torch.where(alike & (own > 0), both / own.clamp_min(1e-30), 0).to(value.dtype)
    line = source.to(value.dtype) * slope.reshape(-1, *(1,) * (value.ndim - 1))
    return straight(value, line if instead is None else instead(value, source, line))
