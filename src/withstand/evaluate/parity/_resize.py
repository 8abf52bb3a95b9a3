"""Suspects of pictures that are resized on their way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ...models import TorchModel
from ._pictures import View, channels_last, eight_bits
from ._route import Route, Step
from ._suspect import Suspect

Size = tuple[int, int]

_FIX = "resize with the evaluated filter, and antialias as it does, where the model is served"
_TORCH = {
    "nearest": {"mode": "nearest"},
    "nearest, from pixel centres": {"mode": "nearest-exact"},
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear, antialiased": {"mode": "bilinear", "align_corners": False, "antialias": True},
    "bilinear, corners aligned": {"mode": "bilinear", "align_corners": True},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "bicubic, antialiased": {"mode": "bicubic", "align_corners": False, "antialias": True},
}


def resize_suspects(view: View, x: Tensor, route: Route) -> list[Suspect]:
    """Other filters where the route changes the size of pictures, else a detour over a size.

    A step that meets pictures of the size it makes leaves them alone, so another filter goes in
    front of it.
    """
    found = []
    for place, size, last in _places(x, route):
        at = View(last, view.low, view.span)
        # Only raw values have a known unit, in which they can be rounded.
        raw = place == 0
        for name, filtered in _filters(size, rounded=raw).items():
            step = at.on(filtered, unit=raw)
            found.append(_suspect(f"resized by another filter: {name}", place, step))
    if found or x.ndim != 4:
        return found
    for name, detour in (("cropped to 7/8", _cropped), ("shrunk to half", _halved)):
        step = view.on(detour)
        found.append(_suspect(f"{name} and enlarged again on the way", 0, step))
    return found


def _suspect(change: str, place: int, step: Step) -> Suspect:
    def alter(route: Route) -> Route:
        return route.inserted(place, step)

    return Suspect(step="resize filter", change=change, fix=_FIX, alter=alter)


def _places(x: Tensor, route: Route) -> Iterator[tuple[int, Size, bool]]:
    """Where the size changes, to which one, and whether channels come last there."""
    before = x[:2]
    with suppress(Exception), torch.no_grad():
        for place, step in enumerate(route.steps):
            after = step(before.clone())
            if after.ndim == 4 and before.ndim == 4 and _size(after) != _size(before):
                yield place, _size(after), channels_last(before)
            before = after
        first = _first_convolved(route, before)
        if first is not None and before.ndim == 4 and _size(first) != _size(before):
            yield len(route.steps), _size(first), channels_last(before)


def _size(x: Tensor) -> Size:
    sides = x.shape[1:3] if channels_last(x) else x.shape[2:4]
    return sides[0], sides[1]


def _first_convolved(route: Route, x: Tensor) -> Tensor | None:
    """What the first convolution receives, where a network resizes inside."""
    if not isinstance(route.model, TorchModel):
        return None
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for module in route.model.net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        route.model.scores(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen else None


def _filters(size: Size, *, rounded: bool) -> dict[str, Step]:
    found: dict[str, Step] = {
        name: partial(interpolate, size=size, **options)  # type: ignore[arg-type]
        for name, options in _TORCH.items()
    }
    found["area"] = partial(adaptive_avg_pool2d, output_size=size)
    found["Lanczos"] = partial(_lanczos, size=size)
    found["the middle cut out"] = partial(_cut, size=size)
    if rounded:
        for name in ("bilinear", "bilinear, antialiased", "bicubic, antialiased", "Lanczos"):
            found[f"{name}, rounded to 8 bits"] = partial(_rounded, resize=found[name])
    return found


def _rounded(x: Tensor, resize: Step) -> Tensor:
    return eight_bits(resize(x))


def _lanczos(x: Tensor, size: Size) -> Tensor:
    planes = x.float().flatten(0, 1).cpu().numpy()
    seen = [
        torch.frombuffer(
            bytearray(
                Image.fromarray(plane).resize(size[::-1], Image.Resampling.LANCZOS).tobytes()
            ),
            dtype=torch.float32,
        )
        for plane in planes
    ]
    return torch.stack(seen).reshape(*x.shape[:2], *size).to(x)


def _cut(x: Tensor, size: Size) -> Tensor:
    top, left = ((whole - part) // 2 for whole, part in zip(x.shape[2:], size, strict=True))
    if min(top, left) < 0:
        raise ValueError
    return x[:, :, top : top + size[0], left : left + size[1]]


def _cropped(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return _resampled(_cut(x, (height * 7 // 8, width * 7 // 8)), (height, width))


def _halved(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return _resampled(_resampled(x, (height // 2, width // 2)), (height, width))


def _resampled(x: Tensor, size: Size) -> Tensor:
    return interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
