"""Layers that cut or kill the gradient (shattered gradients, Athalye et al. 2018, section 4)."""

from __future__ import annotations

import io
from copy import deepcopy
from math import ceil
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..._errors import ModelError
from ._surgery import rewired, weighted


def zero_gradient(net: nn.Module) -> nn.Module:
    """The net behind a layer that hands its input on and gives back a gradient of zero."""
    return _behind(_ZeroGradient(), net)


def quantiser(net: nn.Module, *, levels: int = 16) -> nn.Module:
    """The net behind an input (B, ...) in [0, 1] rounded to so many levels (Xu et al. 2018)."""
    return _behind(_Quantiser(levels), net)


def thermometer(net: nn.Module, *, levels: int = 16) -> nn.Module:
    """The net behind a thermometer code of its input in [0, 1] (Buckman et al. 2018, eq. 5).

    Each pixel becomes `levels` - 1 bits, found by comparison, whose mean the net sees: the same net
    without the code is the one handed in.
    """
    return _behind(_Thermometer(levels), net)


def jpeg(net: nn.Module, *, quality: int = 75) -> nn.Module:
    """The net behind real JPEG files of 8 bits (Guo et al. 2018).

    Pictures (B, 1 or 3, H, W) in [0, 1]; raises ModelError for other shapes.
    """
    return _behind(_JpegFile(quality), net)


def detached(net: nn.Module, *, kept: float = 0.0) -> nn.Module:
    """The net with its middle layer's output detached, as a stray `.detach()` or `.data` does.

    kept: the share of that layer's features whose gradient survives; 0 cuts the net in two. Raises
    ModelError for a net without convolutions and linear layers.
    """
    names = weighted(net)
    return rewired(net, [names[len(names) // 2]], lambda layer: _Detached(layer, kept))


def _behind(front: nn.Module, net: nn.Module) -> nn.Module:
    return nn.Sequential(front, deepcopy(net)).eval()


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return torch.zeros_like(slopes[0])


class _ZeroGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Nothing.apply(x)  # type: ignore[no-untyped-call]
        return out


class _Quantiser(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.steps = levels - 1

    def forward(self, x: Tensor) -> Tensor:
        return (self.steps * x).round() / self.steps


class _Thermometer(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        steps = levels - 1
        self.register_buffer("marks", (torch.arange(steps) + 0.5) / steps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        bits = x[..., None] > self.get_buffer("marks")
        return bits.to(x.dtype).mean(-1)


class _JpegFile(nn.Module):
    def __init__(self, quality: int) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ModelError(f"JPEG needs (B, 1 or 3, H, W); the input has {tuple(x.shape)}")
        pixels = (255 * x.detach()).round().clamp(0, 255).byte().movedim(1, -1).cpu().numpy()
        seen = np.stack([self._reread(picture) for picture in pixels])
        return torch.from_numpy(seen).to(x).movedim(-1, 1) / 255

    def _reread(self, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        file = io.BytesIO()
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(
            file, "JPEG", quality=self.quality
        )
        return np.asarray(Image.open(file)).reshape(picture.shape)


class _Detached(nn.Module):
    def __init__(self, layer: nn.Module, kept: float) -> None:
        super().__init__()
        self.layer, self.kept = layer, kept

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        if not self.kept:
            return out.detach()
        count = ceil(self.kept * out.shape[1])
        return torch.cat((out[:, :count], out[:, count:].detach()), 1)
