"""Small networks that know their data well, without training: something to try a detector on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..detect import Modality
from ..models import Model, differentiable
from .planted._attacks import climbed

_SHAPES: dict[Modality, tuple[int, ...]] = {
    "image": (3, 12, 12),
    "tabular": (16,),
    "signal": (1, 48),
    "text": (24,),
}
_CLASSES = 3
_FITTED, _SEEN = 240, 60


@dataclass(frozen=True, kw_only=True)
class Victim:
    """Two networks for the same classes, benign inputs to fit on with labels, and others."""

    modality: Modality
    nets: nn.ModuleList
    fitted: Tensor
    y: Tensor
    seen: Tensor


def victim(modality: Modality) -> Victim:
    """Noisy prototypes of each class, smooth where there are neighbours; letters as code points."""
    shape = _SHAPES[modality]
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(_FITTED + _SEEN) % _CLASSES

    def drawn(deviation: float, *size: int) -> Tensor:
        return deviation * torch.randn(len(y), *size, generator=rng)

    ones = (1,) * len(shape)
    waves = _waves(torch.rand(_CLASSES + 1, *shape, generator=rng))
    x = (1 + drawn(0.2, *ones)) * waves[y] + drawn(0.3, *ones) * waves[-1] + drawn(0.02, *shape)
    x = (0.5 + 0.35 * x).clamp(0, 1)
    if modality == "text":
        x = (ord("a") + 25 * x).round()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = nn.ModuleList([_solved(modality, x, y) for _ in range(2)])
    return Victim(
        modality=modality, nets=nets.train(), fitted=x[:_FITTED], y=y[:_FITTED], seen=x[_FITTED:]
    )


def _waves(x: Tensor) -> Tensor:
    """x (N, C, ...) without small detail, between -1 and 1; a table as it is."""
    if x.ndim == 2:
        return 2 * x - 1
    axes = tuple(range(2, x.ndim))
    spectrum = torch.fft.fftn(x - x.mean(axes, keepdim=True), dim=axes)
    for axis in axes:
        low = torch.fft.fftfreq(x.shape[axis]).abs() < 0.1
        spectrum = spectrum * low.reshape(-1, *(1,) * (x.ndim - axis - 1))
    waves: Tensor = torch.fft.ifftn(spectrum, dim=axes).real
    return waves / waves.abs().amax(axes, keepdim=True)


def _solved(modality: Modality, x: Tensor, y: Tensor) -> nn.Module:
    """Random features, and a last layer by least squares."""
    first: list[nn.Module] = [nn.Linear(x.shape[1], 64)]
    if modality == "image":
        first = [nn.Conv2d(x.shape[1], 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)]
    elif modality == "signal":
        first = [nn.Conv1d(x.shape[1], 8, 3, stride=2, padding=1), nn.BatchNorm1d(8)]
    body = [*first, nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(32), nn.ReLU()]
    last = nn.Linear(32, _CLASSES)
    net = nn.Sequential(*body, last).eval()
    with torch.no_grad():
        features = net[:-1](x)
        known = torch.cat((features, torch.ones(len(x), 1)), 1)
        wanted = 40 * one_hot(y, _CLASSES).float()
        ridge = 1e-3 * torch.eye(known.shape[1])
        solution = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted)
        last.weight.copy_(solution[:-1].T)
        last.bias.copy_(solution[-1])
    return net


def suspicious(model: Model, known: Victim) -> dict[str, Tensor]:
    """Inputs by kind that one detector or another should notice, made of the benign ones."""
    x, rng = known.seen, torch.Generator().manual_seed(1)
    if known.modality == "text":
        hidden = torch.rand(x.shape, generator=rng) < 0.2
        return {"invisible": torch.where(hidden, torch.tensor(float(ord("\u200b"))), x)}
    with model.held():
        ask, labels = differentiable(model), model.labels(x)
        near = climbed(ask, x, labels, eps=0.05, size=0.02, steps=5)
        far = climbed(ask, x, labels, eps=0.3, size=0.1, steps=8)
        inner, outer = x, far
        for _ in range(8):
            middle = (inner + outer) / 2
            same = (model.labels(middle) == labels).reshape(-1, *(1,) * (x.ndim - 1))
            inner, outer = torch.where(same, middle, inner), torch.where(same, outer, middle)
    return {
        "attacked a little": near,
        "attacked": far,
        "borderline": outer,
        "barely across": outer + 0.1 * (outer - x),
        "noise": torch.rand(x.shape, generator=rng),
        "remote": 5 * x - 2,
    }
