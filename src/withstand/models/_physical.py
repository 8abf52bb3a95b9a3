"""The world between a picture and a model: views drawn at random, attacked through their mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import ArrayLike
from torch import Tensor

from .._errors import ModelError
from ._jpeg import Jpeg
from ._pipeline import Pipeline
from ._protocol import Model
from ._randomized import Randomized

T = TypeVar("T")
Range = tuple[float, float]
Fill = Literal["border", "zeros"]


class Transform(Protocol):
    """One draw of a change of pictures (B, C, H, W) with values in 0 to 1, alike for all rows."""

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor: ...


class Physical(Randomized):
    """A model behind random views of its input (Athalye et al. 2018, EOT), for physical attacks.

    transforms: applied in order to the whole picture, which they see in the unit of the domain
    (0 to 1). A draw is one view for all rows, made of (seed, draw) alone: common random numbers,
    whatever the batch. As in Randomized, attacks see the mean over `draws` views, and are judged
    by as many others. Raises ModelError for what is no picture (B, C, H, W), and for a domain
    without bounds. `draws` forwards of the model a query.
    """

    def __init__(
        self,
        model: Model,
        transforms: Sequence[Transform],
        *,
        draws: int = 20,
        seed: int = 0,
        combine: Literal["probabilities", "logits"] = "probabilities",
    ) -> None:
        if seed < 0:
            raise ModelError(f"seed is {seed}; give at least 0")
        lower, upper = np.asarray(model.domain.lower), np.asarray(model.domain.upper)
        if not np.isfinite(upper - lower).all() or (upper <= lower).any():
            raise ModelError("views need a domain with bounds, the lower below the upper one")
        self.transforms, self.seed, self._draw = tuple(transforms), seed, 0
        self.seen = model
        behind = Pipeline([self._seen], model, domain=model.domain)
        super().__init__(behind, draws=draws, combine=combine)

    def view(self, x: Tensor, draw: int) -> Tensor:
        """Raw pictures x (B, C, H, W) as draw number `draw` sees them; attacks are judged by the
        numbers from `draws` on."""
        if x.ndim != 4:
            raise ModelError(f"views need pictures (B, C, H, W); the input has {tuple(x.shape)}")
        lower = torch.as_tensor(self.domain.lower, dtype=x.dtype, device=x.device)
        span = torch.as_tensor(self.domain.upper, dtype=x.dtype, device=x.device) - lower
        x = (x - lower) / span
        for place, transform in enumerate(self.transforms):
            # A stream for each place, so that one more transform leaves the others' draws alone.
            x = transform(x, np.random.default_rng((self.seed, draw, place)))
        return x * span + lower

    def facts(self) -> dict[str, Any]:
        """The views, for reports."""
        return {"views": [repr(t) for t in self.transforms], "seed": self.seed}

    def _seen(self, x: Tensor) -> Tensor:
        return self.view(x, self._draw)

    def _drawn(
        self, x: Tensor, ask: Callable[[], T], *, first: int = 0, draws: int | None = None
    ) -> list[T]:
        numbers = count(first)

        def ask_next() -> T:
            self._draw = next(numbers)
            return ask()

        return super()._drawn(x, ask_next, first=first, draws=draws)


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Rotation, scale, translation and shear about the centre, sampled bilinearly.

    rotation and shear: up to so many degrees either way; scale: a range of factors; translation: up
    to this share of height and width; fill: what comes in from outside, the border's value or 0.
    """

    rotation: float = 0.0
    scale: Range = (1.0, 1.0)
    translation: float = 0.0
    shear: float = 0.0
    fill: Fill = "border"

    def __post_init__(self) -> None:
        _check(self, "scale", self.scale, 1e-3)
        for name in ("rotation", "translation", "shear"):
            _check(self, name, (0.0, getattr(self, name)), 0)
        if self.shear >= 90:
            raise ModelError(f"Affine's shear is {self.shear}; give less than 90 degrees")

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        turn, right, down, lean = rng.uniform(-1, 1, 4)
        height, width = x.shape[2:]
        return warp(
            x,
            angle=turn * self.rotation,
            right=right * self.translation * width,
            down=down * self.translation * height,
            scale=rng.uniform(*self.scale),
            shear=lean * self.shear,
            fill=self.fill,
        )


def warp(
    x: Tensor,
    *,
    angle: ArrayLike = 0.0,
    right: ArrayLike = 0.0,
    down: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    shear: ArrayLike = 0.0,
    fill: Fill = "border",
) -> Tensor:
    """Pictures x (B, C, H, W) sheared, scaled and turned about the centre, then shifted.

    angle: degrees anticlockwise; shear: degrees by which verticals lean; right and down: pixels.
    Each is one number, or one for each row (B,).
    """
    height, width = x.shape[2:]
    motion = motions(height, width, angle=angle, right=right, down=down, scale=scale, shear=shear)
    return moved(x, motion.to(x), fill)


def motions(
    height: int,
    width: int,
    *,
    angle: ArrayLike = 0.0,
    right: ArrayLike = 0.0,
    down: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    shear: ArrayLike = 0.0,
) -> Tensor:
    """The matrices (M, 2, 3) that `moved` takes, for the numbers that `warp` takes."""
    numbers = (np.asarray(n, np.float64) for n in (angle, right, down, scale, shear))
    angle, right, down, scale, shear = np.broadcast_arrays(*numbers)
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    lean = np.tan(np.radians(shear))
    # The grid asks where an output comes from: shift, turn, scale and shear undone in that order.
    (a, b), (c, d) = (cos - lean * sin, -sin - lean * cos), (sin, cos)
    # In torch's unit half of each side is 1: turning a picture that is not square needs the ratio.
    ratio = height / width
    rows = (
        np.stack((a, b * ratio, -2 * (a * right + b * down) / width), -1),
        np.stack((c / ratio, d, -2 * (c * right + d * down) / height), -1),
    )
    return torch.from_numpy(np.stack(rows, -2).reshape(-1, 2, 3))


def moved(x: Tensor, motion: Tensor, fill: Fill = "border") -> Tensor:
    """Pictures x (B, C, H, W) sampled bilinearly where `motion`, (1 or B, 2, 3), says."""
    height, width = x.shape[2:]
    column = (2 * torch.arange(width, device=x.device) + 1).to(x) / width - 1
    row = (2 * torch.arange(height, device=x.device)[:, None] + 1).to(x) / height - 1
    # Not by a matrix product, whose rounding may depend on the size of the batch.
    across, down, shift = (motion[:, :, n, None, None] for n in range(3))
    grid = (across * column + down * row + shift).movedim(1, -1)
    grid = grid.expand(len(x), height, width, 2)
    return F.grid_sample(x, grid, padding_mode=fill, align_corners=False)


@dataclass(frozen=True, kw_only=True)
class Light:
    """Contrast about mid-grey, brightness and gamma, each from its range, cut to 0 to 1.

    brightness is added, in units of the whole range; contrast is a factor, gamma an exponent.
    """

    brightness: Range = (0.0, 0.0)
    contrast: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)

    def __post_init__(self) -> None:
        _check(self, "brightness", self.brightness, -1, 1)
        _check(self, "contrast", self.contrast, 0)
        _check(self, "gamma", self.gamma, 1e-3)

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        brightness, contrast = rng.uniform(*self.brightness), rng.uniform(*self.contrast)
        gamma, toe = rng.uniform(*self.gamma), 0.01
        x = (x * contrast + (0.5 - 0.5 * contrast + brightness)).clamp(0, 1)
        # As sRGB's, the curve is shifted a little: at black a power's slope is 0 or infinite.
        foot, top = math.pow(toe, gamma), math.pow(1 + toe, gamma)
        return ((x + toe).pow(gamma) - foot) / (top - foot)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Gaussian blur of a standard deviation from a range, in pixels; borders are continued."""

    sigma: Range = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self, "sigma", self.sigma, 0)

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        sigma = max(rng.uniform(*self.sigma), 1e-3)
        reach = math.ceil(3 * sigma)
        offset = np.arange(-reach, reach + 1)
        weight = np.exp(-0.5 * (offset / sigma) ** 2)
        kernel = torch.from_numpy(weight / weight.sum()).to(x)
        planes = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
        planes = F.conv2d(F.conv2d(planes, kernel[None, None, None]), kernel[None, None, :, None])
        return planes.reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Gaussian noise of a standard deviation from a range, each feature its own, cut to 0 to 1."""

    sigma: Range = (0.0, 0.05)

    def __post_init__(self) -> None:
        _check(self, "sigma", self.sigma, 0)

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        sigma = rng.uniform(*self.sigma)
        noise = rng.standard_normal(tuple(x.shape[1:]), np.float32)
        return (x + sigma * torch.from_numpy(noise).to(x)).clamp(0, 1)


def print_and_camera(severity: float = 0.5) -> tuple[Transform, ...]:
    """The picture is printed, seen from an angle in some light, photographed and stored.

    severity: 0, where only JPEG of quality 100 is left, to 1, where a person hardly reads it.
    """
    if not 0 <= severity <= 1:
        raise ModelError(f"severity is {severity}; it is from 0 to 1")
    s = severity
    return (
        # Ink is not black, paper not white, and dots grow.
        Light(contrast=(1 - 0.3 * s, 1 - 0.1 * s), gamma=(1.0, 1 + 0.4 * s)),
        Affine(
            rotation=30 * s, scale=(1 - 0.2 * s, 1 + 0.2 * s), translation=0.1 * s, shear=15 * s
        ),
        Light(
            brightness=(-0.2 * s, 0.2 * s),
            contrast=(1 - 0.4 * s, 1 + 0.4 * s),
            gamma=(1 / (1 + 0.5 * s), 1 + 0.5 * s),
        ),
        Blur(sigma=(0.0, 1.2 * s)),
        Noise(sigma=(0.0, 0.08 * s)),
        Jpeg(quality=(round(100 - 60 * s), round(100 - 10 * s))),
    )


def _check(
    owner: object, name: str, pair: tuple[float, float], least: float, most: float = math.inf
) -> None:
    if not (least <= pair[0] <= pair[1] <= most) or not math.isfinite(pair[1]):
        limit = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"
        raise ModelError(
            f"{type(owner).__name__}'s {name} is {getattr(owner, name)}; give numbers {limit}, "
            "the lower one first"
        )
