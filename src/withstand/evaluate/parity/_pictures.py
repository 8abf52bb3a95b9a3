"""Suspects of pictures: normalisation, channels, layout, 8 bits, JPEG, colour, orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import isfinite
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..._errors import DataError
from ...threat import Box
from ._route import Route, Step
from ._suspect import Suspect, before, missing_or_twice

Layout = Literal["auto", "none", "chw", "hwc"]

# Channel means and standard deviations that are handed around, of pictures from 0 to 1.
_NORMAL: dict[int, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    3: {
        "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "mean 0.5, std 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "CIFAR-10, std by picture": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    },
    1: {
        "mean 0.5, std 0.5": ((0.5,), (0.5,)),
        "MNIST": ((0.1307,), (0.3081,)),
        "Fashion-MNIST": ((0.2860,), (0.3530,)),
    },
}
_LUMA = (0.299, 0.587, 0.114)
_QUALITIES = (75, 95, 90, 85, 80, 50)


@dataclass(frozen=True)
class View:
    """How raw input (B, ...) is seen as pictures (B, C, H, W), and in the unit from 0 to 1."""

    last: bool
    low: float
    span: float

    def on(self, function: Step, *, unit: bool = False) -> Step:
        """A function of pictures as one of raw input; `unit`: of pictures from 0 to 1."""

        def step(x: Tensor) -> Tensor:
            grey = x.ndim == 3
            out = x[:, None] if grey else x.movedim(3, 1) if self.last else x
            out = function((out - self.low) / self.span) if unit else function(out)
            out = out * self.span + self.low if unit else out
            return out[:, 0] if grey else out.movedim(1, 3) if self.last else out

        return step


def view_of(x: Tensor, domain: Box, layout: Layout) -> View | None:
    """How x (N, ...) is seen as pictures; None if it is none. Raises DataError for the layout."""
    if layout not in ("auto", "none", "chw", "hwc"):
        raise DataError(f"layout is {layout!r}; it is one of auto, none, chw, hwc")
    if layout == "none" or (layout == "auto" and x.ndim not in (3, 4)):
        return None
    if x.ndim not in (3, 4):
        raise DataError(f"layout {layout} needs pictures; x has shape {tuple(x.shape)}, use none")
    last = layout == "hwc" if layout != "auto" else channels_last(x)
    if x.ndim == 4 and layout == "auto" and x.shape[3 if last else 1] not in (1, 3):
        return None
    low, high = float(np.min(domain.lower)), float(np.max(domain.upper))
    if not (isfinite(low) and isfinite(high)):
        low, high = 0.0, 255.0 if float(x.max()) > 2 else 1.0
    return View(last, low, high - low)


def channels_last(x: Tensor) -> bool:
    """Whether the axis of 1 or 3 channels can only be the last one."""
    return x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3)


def picture_suspects(view: View, x: Tensor, steps: int) -> list[Suspect]:
    """All suspects of pictures but resizing; steps: how many the reference has of its own."""
    channels = 1 if x.ndim == 3 else x.shape[3 if view.last else 1]
    return [
        *_normalisation(view, channels),
        *(_colour(view, steps) if channels == 3 else []),
        *_layout(view),
        *_eight_bits(view),
        *(_jpeg(view) if channels in (1, 3) else []),
    ]


def _normalisation(view: View, channels: int) -> list[Suspect]:
    found: list[Suspect] = []
    known = {
        name: tuple(torch.tensor(v)[:, None, None] for v in pair)
        for name, pair in _NORMAL.get(channels, {}).items()
    }
    for name, (mean, std) in known.items():
        found += missing_or_twice(
            "normalisation",
            f"the normalisation (x - mean) / std ({name})",
            f"normalise exactly once, with the statistics of training ({name})",
            forward=view.on(lambda x, m=mean, s=std: (x - m.to(x)) / s.to(x), unit=True),  # type: ignore[misc]
            backward=view.on(lambda x, m=mean, s=std: x * s.to(x) + m.to(x), unit=True),  # type: ignore[misc]
        )
    for right, (mean, std) in known.items():
        for wrong, (m, s) in known.items():

            def other(x: Tensor, a: Tensor = std / s, b: Tensor = mean - m * std / s) -> Tensor:
                return a.to(x) * x + b.to(x)

            if wrong != right:
                found.append(
                    Suspect(
                        step="normalisation",
                        change=f"normalised with the statistics of {wrong} instead of {right}",
                        fix=f"normalise with the statistics of training ({right})",
                        alter=before(view.on(other, unit=True)),
                    )
                )
    return found


def _colour(view: View, steps: int) -> list[Suspect]:
    def flipped(x: Tensor) -> Tensor:
        return x.flip(1)

    def late(route: Route) -> Route:
        return route.inserted(len(route.steps), flipped)

    def luma(x: Tensor) -> Tensor:
        weights = torch.tensor(_LUMA).to(x)[:, None, None]
        return (weights * x).sum(1, keepdim=True).expand_as(x)

    def mean(x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)

    order = "read pictures in RGB order where the model is served (OpenCV reads BGR)"
    colour = "keep the colours where the model is served (Pillow: convert('RGB'))"
    changes = [("channel order", "BGR instead of RGB", order, before(view.on(flipped)))]
    if steps:
        changes.append(("channel order", "BGR instead of RGB after preprocessing", order, late))
    changes += [
        ("colour", "pictures are made grey", colour, before(view.on(luma))),
        ("colour", "pictures are made grey by the channels' mean", colour, before(view.on(mean))),
    ]
    return [Suspect(step=s, change=c, fix=f, alter=a) for s, c, f, a in changes]


def _layout(view: View) -> list[Suspect]:
    def misread(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.reshape(b, h, w, c).movedim(3, 1)

    def misread_back(x: Tensor) -> Tensor:
        return x.movedim(1, 3).reshape(x.shape)

    changes: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
        ("layout", "CHW numbers are read as HWC", misread),
        ("layout", "HWC numbers are read as CHW", misread_back),
        ("layout", "height and width change places", lambda x: x.transpose(2, 3)),
        ("orientation", "pictures are upside down", lambda x: x.flip(2)),
        ("orientation", "pictures are mirrored", lambda x: x.flip(3)),
        ("orientation", "pictures are turned by 90 degrees", lambda x: x.rot90(1, (2, 3))),
        ("orientation", "pictures are turned by -90 degrees", lambda x: x.rot90(-1, (2, 3))),
        ("orientation", "pictures are turned by 180 degrees", lambda x: x.flip(2, 3)),
    ]
    fixes = {
        "layout": "move the axes (numpy.moveaxis) instead of reshaping where the model is served",
        "orientation": "read pictures upright, as EXIF says, where the model is served",
    }
    return [
        Suspect(step=step, change=change, fix=fixes[step], alter=before(view.on(function)))
        for step, change, function in changes
    ]


def _eight_bits(view: View) -> list[Suspect]:
    changes: list[tuple[str, str, Step]] = [
        ("8-bit quantisation", "values are rounded to 8 bits", eight_bits),
        ("8-bit quantisation", "values are cut to 8 bits", lambda x: (255 * x).floor() / 255),
        ("inversion", "dark and light change places", lambda x: 1 - x),
    ]
    fixes = {
        "8-bit quantisation": "send floating point, or evaluate on rounded inputs",
        "inversion": "keep the background's value of training where the model is served",
    }
    cut = Suspect(
        step="dtype",
        change="raw values are cut to whole numbers (uint8) before anything else",
        fix="convert to floating point before scaling where the model is served",
        alter=before(torch.floor),
    )
    return [
        *(
            Suspect(step=s, change=c, fix=fixes[s], alter=before(view.on(f, unit=True)))
            for s, c, f in changes
        ),
        cut,
    ]


def eight_bits(x: Tensor) -> Tensor:
    """Pictures from 0 to 1, rounded to 256 levels."""
    return (255 * x).round().clamp(0, 255) / 255


def _jpeg(view: View) -> list[Suspect]:
    return [
        Suspect(
            step="JPEG",
            change=f"pictures pass through JPEG of quality {quality}",
            fix="send PNG or raw pixels, or evaluate on pictures that passed through JPEG",
            alter=before(
                view.on(lambda x, quality=quality: jpeg(x, quality), unit=True)  # type: ignore[misc]
            ),
        )
        for quality in _QUALITIES
    ]


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Pictures (B, 1 or 3, H, W) from 0 to 1, encoded and decoded by Pillow."""
    return torch.stack([_coded(picture, quality) for picture in x]).to(x)


def _coded(picture: Tensor, quality: int) -> Tensor:
    levels = (255 * picture.cpu()).round().clamp(0, 255).to(torch.uint8)
    rows = levels[0] if len(levels) == 1 else levels.movedim(0, 2)
    file = BytesIO()
    Image.fromarray(rows.numpy()).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        seen = torch.from_numpy(np.array(image)) / 255
    return seen[None] if seen.ndim == 2 else seen.movedim(2, 0)
