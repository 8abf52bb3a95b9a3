"""Slopes of a detector's score to follow, where its own is cut off or random."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...models import StraightThrough
from .._contract import Method, Observation
from .._detector import Detector
from .._observe import Observer
from ._view import Suspicion

_CUT = 0.05
_DRAWS = 10
_PAIRS = 16
_FEW = 32


@dataclass(frozen=True, kw_only=True)
class Way:
    """How an attacker follows the score: what stands for it, and in which words.

    cut: the share of inputs at which what is followed has no slope. random: the score hangs on
    draws, of which the attacker takes others than the detector will.
    """

    suspicion: Suspicion
    told: str
    cut: float
    random: bool = False


def blind(detector: Detector, x: Tensor) -> Way:
    """That of attackers without gradients; x (N, ...) tells whether the score is random."""
    random = _random(detector, x[:_FEW])
    told = "no slope, since there is no access to gradients"
    return Way(suspicion=detector.suspicion_seen, told=told, cut=1.0, random=random)


def way(detector: Detector, x: Tensor) -> Way:
    """The best way to follow the detector's score around inputs x (N, ...).

    Its own gradient; the mean over draws with other seeds where it is random (EOT); through
    roundings and comparisons where these cut it (BPDA, `StraightThrough`); else estimated from
    scores alone.
    """
    x = x[torch.linspace(0, len(x) - 1, min(_FEW, len(x))).long()]
    own: Suspicion = detector.suspicion_seen
    told, random = "its own gradient", _random(detector, x)
    if random:
        own, told = drawn(detector, _DRAWS), f"the mean gradient of {_DRAWS} other draws (EOT)"
    cut = _share_cut(detector, own, x)
    if cut <= _CUT:
        return Way(suspicion=own, told=told, cut=cut, random=random)
    through = straight(own, detector.observer)
    still = _share_cut(detector, through, x)
    if still <= min(_CUT, cut):
        return Way(suspicion=through, told=f"{told}, led through (BPDA)", cut=still, random=random)
    estimate = estimated(own, detector.observer, float(x.max() - x.min()))
    left = _share_cut(detector, estimate, x)
    if left < min(cut, still):
        told = f"a gradient estimated from {2 * _PAIRS} scores"
        return Way(suspicion=estimate, told=told, cut=left, random=random)
    best = through if still < cut else own
    return Way(suspicion=best, told=told, cut=min(cut, still), random=random)


def drawn(detector: Detector, draws: int) -> Suspicion:
    """The mean suspicion over so many other draws."""
    others = [
        replace(detector, method=_reseeded(detector.method, 1_000_003 * (k + 1)))
        for k in range(draws)
    ]

    def mean(seen: Observation) -> Tensor:
        return torch.stack([other.suspicion_seen(seen) for other in others]).mean(0)

    return mean


def straight(suspicion: Suspicion, observer: Observer) -> Suspicion:
    """The same values, through whatever cuts the gradient off; 1 forward more."""

    def through(seen: Observation) -> Tensor:
        values: Tensor = StraightThrough(lambda x: suspicion(observer(x)))(seen.x)
        return values

    return through


def estimated(suspicion: Suspicion, observer: Observer, span: float) -> Suspicion:
    """The same values, with a slope from differences along random directions (Ilyas et al. 2018).

    2 forwards for each of 16 pairs of points a hundredth of the inputs' span away.
    """

    def told(seen: Observation) -> Tensor:
        if not (torch.is_grad_enabled() and seen.x.requires_grad):
            return suspicion(seen)
        values: Tensor = _Estimated.apply(seen.x, observer, suspicion, span / 100)  # type: ignore[no-untyped-call]
        return values

    return told


class _Estimated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, look: Observer, suspicion: Suspicion, far: float) -> Tensor:
        ctx.look, ctx.suspicion, ctx.far = look, suspicion, far
        ctx.save_for_backward(x)
        return suspicion(look(x.detach()))

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        slope = torch.zeros_like(x)
        shape = (-1, *(1,) * (x.ndim - 1))
        with torch.no_grad():
            for pair in range(_PAIRS):
                # One direction for all rows, so that a row's slope does not hang on the others.
                generator = torch.Generator().manual_seed(pair)
                along = torch.randn(x.shape[1:], generator=generator).to(x)
                up, down = x + ctx.far * along, x - ctx.far * along
                rise = ctx.suspicion(ctx.look(up)) - ctx.suspicion(ctx.look(down))
                slope += (rise / (2 * ctx.far * _PAIRS)).reshape(shape) * along
        return weights[0].reshape(shape) * slope, None, None, None


def _share_cut(detector: Detector, suspicion: Suspicion, x: Tensor) -> float:
    """The share of inputs at which the score has no slope."""
    with detector.model.held(), torch.enable_grad():
        x = x.detach().requires_grad_()
        values = suspicion(detector.observer(x))
        if not values.requires_grad:
            return 1.0
        (slope,) = torch.autograd.grad(values.sum(), x, allow_unused=True, materialize_grads=True)
    flat = slope.flatten(1)
    return float(((flat == 0).all(1) | ~flat.isfinite().all(1)).float().mean())


def _random(detector: Detector, x: Tensor) -> bool:
    other = replace(detector, method=_reseeded(detector.method, 1_000_003))
    return not torch.equal(other.score(x), detector.score(x))


def _reseeded(method: Method, by: int) -> Method:
    """The method with other seeds, down to the methods that it is made of."""
    if not is_dataclass(method):
        return method
    changed = {f.name: _changed(f.name, getattr(method, f.name), by) for f in fields(method)}
    return replace(method, **changed)


def _changed(name: str, value: Any, by: int) -> Any:
    if isinstance(value, Method):
        return _reseeded(value, by)
    if isinstance(value, tuple):
        return tuple(_changed(name, item, by) for item in value)
    return value + by if name == "seed" and isinstance(value, int) else value
