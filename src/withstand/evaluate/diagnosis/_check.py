"""What a check is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf, isfinite
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...attacks import reach
from ...certify import SmoothedClassifier
from ...models import Differentiable, InputTransform, Model, Sloped, Smoothed, StraightThrough
from ...threat import Access, Threat
from ...threat.tabular import Capability
from .._found import Found
from .._probe import Probe
from .._report import Finding, Stage, Surrogate, Verdict
from ._trace import Trace

When = Literal["before", "during", "after"]


def parts(model: object, seen: set[int] | None = None) -> Iterator[object]:
    """A model and all that it is made of, down to torch modules, which are not opened."""
    seen = set() if seen is None else seen
    if id(model) in seen:
        return
    seen.add(id(model))
    if isinstance(model, list | tuple):
        for item in model:
            yield from parts(item, seen)
        return
    yield model
    if not isinstance(model, nn.Module) and type(model).__module__.startswith("withstand"):
        for item in vars(model).values():
            yield from parts(item, seen)


@dataclass(kw_only=True)
class Purse:
    """Passes over single samples that the diagnosis may still spend, and what it has spent."""

    left: int
    forwards: int = 0
    backwards: int = 0

    def rows(self, most: int, each: int) -> int:
        """How many samples a check may look at that needs `each` passes for one: at most `most`."""
        return max(min(most, self.left // max(each, 1)), 0)

    def spend(self, forwards: int, backwards: int = 0) -> None:
        """Note what was asked."""
        self.forwards += forwards
        self.backwards += backwards
        self.left -= forwards + backwards


@dataclass(frozen=True, kw_only=True)
class HandedIn:
    """The model before anything was done to it: layers in training mode, and what one call changed.

    Both by name.
    """

    training: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Case:
    """An evaluation at its end, as checks see it; tensors hold one entry for each sample (N, ...).

    model: held still, its answers as logits; clean: its raw answers to x; correct: which of them
    are right. eps: the radius of each sample in the threat's norm (N,); span: the widest range of a
    feature. missed: share of the fooled that the sweep did not find. trace: of an attack on the
    nearest survivors, with twice the steps, and doubled: how many it fooled; again: how many fresh
    starts fooled before it. unadapted: 1 where the model carries defences and the attack that they
    ask for did not run. Each is None where it was not looked for.
    """

    model: Model
    handed_in: HandedIn
    probabilities: bool
    threat: Threat
    access: Access
    classes: int
    x: Tensor
    y: Tensor
    clean: Tensor
    correct: Tensor
    eps: Tensor
    span: float
    found: Found
    stages: tuple[Stage, ...]
    surrogates: tuple[Surrogate, ...]
    probe: Probe | None
    missed: float | None
    trace: Trace | None
    doubled: int | None
    again: int | None
    swept: bool
    seed: int
    batch: int
    purse: Purse
    unadapted: float | None = None

    @property
    def n(self) -> int:
        """How many samples there are."""
        return len(self.x)

    @cached_property
    def right(self) -> int:
        """How many samples are right without an attack, at least 1 so that shares exist."""
        return max(int(self.correct.sum()), 1)

    @cached_property
    def fooled(self) -> Tensor:
        """Which samples were fooled (N,)."""
        return self.found.fooled

    @cached_property
    def survivors(self) -> Tensor:
        """The places of those that are right and were not fooled."""
        return (self.correct & ~self.fooled).nonzero()[:, 0]

    @property
    def gradients(self) -> bool:
        """Whether the model's gradients may be looked at."""
        return self.access == "gradients"

    @property
    def capability(self) -> Capability | None:
        """What an attacker of a table can do; None where no table is attacked."""
        return next((one for one in self.threat.region if isinstance(one, Capability)), None)

    @property
    def restless(self) -> bool:
        """Whether equal calls were answered differently."""
        return self.probe is not None and self.probe.restless

    @cached_property
    def led(self) -> bool:
        """Whether gradients are led through a stand-in, so that they are not the slope."""
        stand_ins = (Differentiable, StraightThrough, Sloped, Smoothed, SmoothedClassifier)
        return any(
            isinstance(part, stand_ins)
            or isinstance(getattr(part, "__self__", None), InputTransform)
            or (
                isinstance(part, nn.Module)
                and any(isinstance(module, stand_ins) for module in part.modules())
            )
            for part in parts(self.model)
        )

    def sample(self, most: int, each: int) -> Tensor:
        """Places of right samples, spread over the data, for a check of `each` passes a sample."""
        places = self.correct.nonzero()[:, 0]
        n = self.purse.rows(min(most, len(places)), each)
        if n == 0:
            return places[:0]
        return places[torch.linspace(0, len(places) - 1, n).round().long()]

    def generator(self, tag: int) -> torch.Generator:
        """A source of randomness for one check."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + tag)

    def scores(self, x: Tensor) -> Tensor:
        """The model's scores (B, K) at x (B, ...), in batches; 1 forward each."""
        self.purse.spend(len(x))
        return torch.cat([self.model.scores(part) for part in self._parts(x)])

    def margin(self, x: Tensor, places: Tensor) -> Tensor:
        """The goal's margin (B,) at points x (B, ...) of the samples at these places."""
        return self.threat.goal.margin(self.scores(x), self.y[places])

    def slope(self, x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The goal's margin (B,) and its gradient (B, ...); 1 forward and 1 backward each."""
        self.purse.spend(len(x), len(x))
        values, gradients = [], []
        for part, rows in zip(self._parts(x), self._parts(places), strict=True):
            seen = self.model.gradient(part, partial(self._margin, self.y[rows]))
            values.append(seen.values)
            gradients.append(seen.gradient)
        return torch.cat(values), torch.cat(gradients)

    def noisy(self, places: Tensor, share: float, tag: int) -> Tensor:
        """Points (B, ...) at random around the samples, up to a share of the radius, in the domain.

        In another norm than Linf every feature moves by as much as gives that length on average.
        """
        x = self.x[places]
        noise = 2 * torch.rand(x.shape, generator=self.generator(tag), dtype=torch.float64) - 1
        return self.moved(places, noise.to(x), share)

    def moved(self, places: Tensor, direction: Tensor, share: float) -> Tensor:
        """The samples plus a share of the radius along a direction of entries from -1 to 1.

        In a table each feature has a radius of its own, half of what it can become.
        """
        if self.capability is not None:
            widths = self.widths(places)
            return self._cut(self.x[places] + share / 2 * widths * direction)
        x, size = self.x[places], self.x[0].numel()
        eps = self.eps[places].to(x)
        per_feature = {"linf": 1.0, "l2": size**-0.5, "l1": 1 / size}.get(self.threat.norm, 1.0)
        if self.threat.norm == "l0":
            eps = torch.full_like(eps, 0.1 * self.span)
        radius = (share * per_feature * eps).clamp_max(self.span)
        return self._cut(x + radius.reshape(-1, *(1,) * (x.ndim - 1)) * direction)

    def widths(self, places: Tensor) -> Tensor:
        """How far each feature (B, ...) can go; where there is no end, as far as it is from 0."""
        x = self.x[places]
        region = self.threat.take(places.cpu().numpy()).within(self.model.domain).region
        lower, upper, *_ = reach(region, x)
        width = upper - lower
        return torch.where(width.isfinite(), width, x.abs().clamp_min(1))

    def _cut(self, points: Tensor) -> Tensor:
        low, high = (torch.as_tensor(b).to(points) for b in self._bounds)
        return torch.minimum(torch.maximum(points, low), high)

    def _margin(self, y: Tensor, scores: Tensor) -> Tensor:
        return self.threat.goal.margin(scores, y)

    def _parts(self, values: Tensor) -> Sequence[Tensor]:
        return torch.split(values, self.batch)

    @property
    def _bounds(self) -> tuple[Any, Any]:
        return self.model.domain.lower, self.model.domain.upper

    def fooled_in(self, name: str, **settings: object) -> int | None:
        """How many samples the stages of a name fooled; None if there was no such stage."""
        told = [
            stage
            for stage in self.stages
            if stage.name == name
            and all(stage.settings.get(key) == value for key, value in settings.items())
        ]
        return sum(stage.fooled for stage in told) if told else None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question of whether the robust accuracy can be believed.

    measure: a figure, larger is worse, None where the question does not apply; amber and red: the
    limits above which the answer is amber or red, infinite where it never is. meaning and fix: what
    a figure above says, and what to do then. source: who has described the check.
    """

    name: str
    when: When
    measure: Callable[[Case], float | None]
    amber: float
    red: float = inf
    meaning: str
    fix: str
    source: str

    def find(self, case: Case) -> Finding | None:
        """The check's finding; None where it does not apply."""
        value = self.measure(case)
        if value is None:
            return None
        verdict: Verdict = "red" if value > self.red else "amber" if value > self.amber else "green"
        limit = self.amber if isfinite(self.amber) else self.red
        return Finding(
            check=self.name,
            value=float(value),
            threshold=limit if isfinite(limit) else None,
            verdict=verdict,
            meaning=self.meaning,
            fix=self.fix,
        )
