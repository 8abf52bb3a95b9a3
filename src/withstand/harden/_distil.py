"""Distillation: a network that learns another one's answers instead of labels."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError
from ..models import Defence, distilled
from ..threat import Region
from ._contract import Lost, Moment
from ._crafting import around, crafting, slope
from ._trades import divergence


@dataclass(frozen=True, kw_only=True)
class Tempered:
    """Cross-entropy of the scores over a temperature, with labels: how the teacher of defensive
    distillation is trained (Papernot et al. 2016). Costs 1 gradient pass."""

    temperature: float = 20.0

    def __post_init__(self) -> None:
        _check(self.temperature)

    @property
    def regions(self) -> tuple[Region, ...]:
        """None: it hardens against nothing."""
        return ()

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Tempered cross-entropy at the clean points."""
        scores = net(x)
        entropy = cross_entropy(scores / self.temperature, y, label_smoothing=at.smoothing)
        return Lost(entropy, scores)


@dataclass(frozen=True, kw_only=True)
class DefensiveDistillation:
    """Cross-entropy of the scores over a temperature with a teacher's answers at the same one
    (Papernot et al. 2016). This masks gradients and makes nothing robust.

    teacher: trained as `Tempered`. Deployed without the temperature, the student's scores are so
    large that cross-entropy has no slope in float32; a margin loss finds the way (Carlini and
    Wagner 2017). Costs 1 gradient pass and 1 forward of the teacher.
    """

    teacher: nn.Module
    temperature: float = 20.0

    def __post_init__(self) -> None:
        _check(self.temperature)

    @property
    def regions(self) -> tuple[Region, ...]:
        """None: it hardens against nothing."""
        return ()

    @property
    def defences(self) -> tuple[Defence, ...]:
        """What a student carries that no layer shows."""
        return (distilled(self.temperature),)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Tempered cross-entropy with the teacher's answers; labels are not used."""
        soft = (_answers(self.teacher, x) / self.temperature).softmax(1)
        scores = net(x)
        return Lost(cross_entropy(scores / self.temperature, soft), scores)


@dataclass(frozen=True, kw_only=True)
class RSLAD:
    """A robust teacher's answers at the clean points, learnt there and at the worst points around
    (Zi et al. 2021): (1 - alpha) KL(T(x) || S(x)) + alpha KL(T(x) || S(x')), where x' maximises the
    second.

    teacher: robust in the region, of any architecture. Divergences are summed over classes and
    means over samples. Costs steps + 2 gradient passes and 2 forwards of the teacher.
    """

    region: Region
    teacher: nn.Module
    alpha: float = 5 / 6
    steps: int = 10
    step_size: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.steps < 1:
            raise ConfigError(
                f"alpha is {self.alpha} and steps {self.steps}; give an alpha from 0 to 1 and at "
                "least 1 step"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Both divergences from the teacher's answers; labels are not used."""
        made = self.craft(net, x, y, at)
        wanted = _answers(self.teacher, x).log_softmax(1)
        clean, moved = net(x), net(made)
        near, far = divergence(clean, wanted) / len(x), divergence(moved, wanted) / len(x)
        return Lost((1 - self.alpha) * near + self.alpha * far, moved)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, ...) whose answers are driven furthest from the teacher's at x."""
        ball = around(self.region, x, at)
        share = 2.5 / self.steps if self.step_size is None else self.step_size
        points, wanted = ball.start(at.noise), _answers(self.teacher, x).log_softmax(1)
        with crafting(net):
            for _ in range(self.steps):
                points = ball.ascend(points, slope(net, points, wanted, divergence), share)
        return points


def _answers(teacher: nn.Module, x: Tensor) -> Tensor:
    """The scores (B, K) of a teacher that stays as it is."""
    with crafting(teacher), torch.no_grad():
        scores: Tensor = teacher(x)
    return scores


def _check(temperature: float) -> None:
    if not (isfinite(temperature) and temperature > 0):
        raise ConfigError(f"the temperature is {temperature}; give a finite one above 0")
