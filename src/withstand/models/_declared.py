"""Models that carry defences, and the way to attack them through these."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .._errors import ModelError
from ..threat import Access
from ._defence import Defence
from ._detecting import Detecting
from ._ensemble import Counted, Ensemble
from ._physical import Physical
from ._pipeline import Pipeline
from ._protocol import Gradient, Model, Objective
from ._randomized import Randomized
from ._smoothed import Smoothed
from ._straight import straight_through
from ._torch import TorchModel, device_of


class Declared:
    """A model with defences inside that nobody could see from outside, such as a distilled one."""

    def __init__(self, model: Model, *defences: Defence) -> None:
        if not defences:
            raise ModelError("0 defences are declared; give at least one Defence")
        if strange := [one for one in defences if not isinstance(one, Defence)]:
            raise ModelError(
                f"a {type(strange[0]).__name__} is declared; give each as a Defence of its own: "
                "Declared(model, first, second)"
            )
        self.model, self.defences = model, defences
        self.domain = model.domain
        self.access: Access = model.access

    @property
    def device(self) -> torch.device:
        """Where raw input goes."""
        return device_of(self.model)

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 forward."""
        return self.model.scores(x)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 forward."""
        return self.model.labels(x)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """The objective and its gradient at x (B, ...), as the model gives it."""
        return self.model.gradient(x, objective)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K) and the gradients (B, J, ...) of chosen outputs, as they are given."""
        return self.model.jacobian(x, outputs)

    def held(self) -> AbstractContextManager[None]:
        """The model is held."""
        return self.model.held()


def defences_of(model: object) -> tuple[Defence, ...]:
    """The defences that a model carries, the outermost first; none where it says nothing."""
    return own_defences(model) + tuple(d for part in parts_of(model) for d in defences_of(part))


def own_defences(model: object) -> tuple[Defence, ...]:
    """What a model declares of itself, and not of those inside it."""
    told = getattr(model, "defences", ())
    return tuple(d for d in told if isinstance(d, Defence)) if isinstance(told, tuple) else ()


def parts_of(model: object) -> list[Model]:
    """The models that a model is made of."""
    several = getattr(model, "models", ())
    found = [*(several if isinstance(several, tuple) else ()), getattr(model, "model", None)]
    return [part for part in found if isinstance(part, Model)]


def seen_through(model: Model) -> Model:
    """The model as the adaptive attacks of its defences see it: the same answers, other gradients.

    Random ones become the mean over at least as many draws as they ask for. Raises ModelError for
    an adapter that nothing can be seen through.
    """
    found = defences_of(model)
    seen = _seen(model)
    draws = max((d.adaptive.draws or 0 for d in found), default=0)
    return averaged(seen, draws) if draws else seen


def averaged(model: Model, draws: int) -> Model:
    """The mean of the model over its draws, at least so many (EOT)."""
    if not isinstance(model, Randomized):
        return Randomized(model, draws=draws)
    # Others than the plain kind draw what they draw from by themselves.
    if type(model) is not Randomized or model.draws >= draws:
        return model
    return Randomized(model.model, draws=draws, combine=model.combine)


def _seen(model: Model) -> Model:
    if isinstance(model, Declared):
        seen = _seen(model.model)
        for defence in model.defences:
            seen = (defence.adaptive.view or straight_through)(seen)
        return seen
    if isinstance(model, Pipeline):
        steps = [getattr(step, "through", step) for step in model.steps]
        return Pipeline(steps, _seen(model.model), domain=model.domain)
    if isinstance(model, TorchModel) and model.defences:
        step = getattr(model.preprocess, "through", model.preprocess)
        return TorchModel(model.net, domain=model.domain, preprocess=step)
    if isinstance(model, Ensemble) and model.defences:
        return Counted([_seen(member) for member in model.models])
    if isinstance(model, Ensemble):
        return Ensemble([_seen(member) for member in model.models], combine=model.combine)
    if isinstance(model, Detecting):
        return Detecting(_seen(model.model), model.detector, threshold=model.threshold)
    if isinstance(model, Physical):
        behind = _seen(model.seen)
        return Physical(
            behind, model.transforms, draws=model.draws, seed=model.seed, combine=model.combine
        )
    if type(model) is Randomized:
        return Randomized(_seen(model.model), draws=model.draws, combine=model.combine)
    if isinstance(model, Smoothed):
        return Smoothed(_seen(model.model), width=model.width, draws=model.draws)
    if defences_of(model):
        raise ModelError(
            f"a {type(model).__name__} stands in front of its defences, which cannot be seen "
            "through it; put the defences in front"
        )
    return model
