"""Straight through whatever hides the gradient: the model's own values, a surrogate's slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._differentiable import Differentiable
from ._ensemble import Ensemble
from ._input_transform import InputTransform
from ._pipeline import Pipeline
from ._protocol import Model
from ._randomized import Randomized
from ._reconnect import Reconnecting, mend
from ._sloped import Sloped
from ._stand_in import StandIn, nearest
from ._torch import TorchModel


class StraightThrough(nn.Module):
    """A module or function of tensors (B, ...) whose gradient is not cut off (Bengio et al. 2013).

    Values are those of `inner`, bit for bit. On the way back (BPDA, Athalye et al. 2018) roundings,
    detached tensors, trips through numpy and steps without a gradient of their own are the
    identity, comparisons are sigmoids, and whole numbers what they were rounded from.
    What runs outside torch, changes the shape and comes back unlike its input stays cut off.
    stand_in: a known change of pictures whose gradient stands for that of steps which are cut off.
    """

    def __init__(
        self, inner: Callable[[Tensor], Tensor], *, stand_in: StandIn | None = None
    ) -> None:
        super().__init__()
        self.inner, self.stand_in = inner, stand_in

    def forward(self, x: Tensor) -> Tensor:
        """The value of `inner` at x (B, ...); without gradients it is only called."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.inner(x)
        # What works in place on a leaf, through detach or data, would meet autograd's refusal.
        x = x.clone() if x.is_leaf else x
        mode = Reconnecting(x, known=(*self.parameters(), *self.buffers()), instead=self._instead)
        with mode:
            out = self.inner(x)
        if isinstance(out, Tensor):
            out = mode.linked(out)
            mend(out)
        return out

    def _instead(self, value: Tensor, source: Tensor, line: Tensor) -> Tensor:
        made = None if self.stand_in is None else self.stand_in(source.to(line.dtype))
        return line if made is None else made


def straight_through(model: Model, *, stand_in: StandIn | None = None) -> Model:
    """The model with `StraightThrough` around its torch modules and functions, else as it is."""
    return _around(model, lambda inner: StraightThrough(inner, stand_in=stand_in))


def standing_in(model: Model, x: Tensor) -> StandIn | None:
    """The known change of pictures that is most like what cuts the model's gradient at x (B, ...).

    None where nothing is cut off outside torch, or no known change is like it.
    """
    watching: list[_Watching] = []

    def watched(inner: Callable[[Tensor], Tensor]) -> StraightThrough:
        watching.append(_Watching(inner))
        return watching[-1]

    seen = _around(model, watched)
    if seen is model:
        return None
    with seen.held():
        seen.gradient(x, lambda scores: scores.sum(1))
    found = (nearest(*each) for watch in watching for each in watch.cuts)
    return next((stand_in for stand_in in found if stand_in is not None), None)


class _Watching(StraightThrough):
    """What is cut off, what it came from and the line through that, as they are met."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__(inner)
        self.cuts: list[tuple[Tensor, Tensor, Tensor]] = []

    def _instead(self, value: Tensor, source: Tensor, line: Tensor) -> Tensor:
        self.cuts.append((value.detach(), source.detach(), line.detach()))
        return line


def _around(model: Model, wrap: Callable[[Callable[[Tensor], Tensor]], StraightThrough]) -> Model:
    def wrapped(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        # Its parts are held by name, and it has a surrogate of the user's own.
        known = isinstance(function, Differentiable | InputTransform)
        return function if known else wrap(function)

    if isinstance(model, TorchModel):
        return TorchModel(
            model.net if isinstance(model.net, Sloped) else wrap(model.net),
            domain=model.domain,
            preprocess=None if model.preprocess is None else wrapped(model.preprocess),
        )
    if isinstance(model, Pipeline):
        steps = [wrapped(step) for step in model.steps]
        return Pipeline(steps, _around(model.model, wrap), domain=model.domain)
    if isinstance(model, Ensemble):
        return Ensemble([_around(m, wrap) for m in model.models], combine=model.combine)
    if type(model) is Randomized:
        inner = _around(model.model, wrap)
        return Randomized(inner, draws=model.draws, combine=model.combine)
    return model
