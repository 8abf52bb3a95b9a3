"""Ways to a useful gradient, and which of them fools most in a short trial."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import attacks
from ..attacks import APGD, Attack, Result, Square, craft, run, sample_keys, train_surrogate
from ..evidence import Entry, Origin, content_digest
from ..models import Model, Smoothed, adapt, averaged, standing_in, straight_through
from ..threat import Targeted, Threat, Untargeted
from ._cascade import Spend
from ._onward import Onward

_STEPS = 20
_QUERIES = 500
_STARTS = 2
_DRAWS = 5
_TAUGHT = 4000
_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class Way:
    """A model to attack in place of another that gives the same answers; done: in a sentence."""

    model: Model
    done: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Examples x_adv (N, ...) of inputs x (N, ...) that fool a model with gradients."""

    x: NDArray[Any]
    x_adv: NDArray[Any]
    label: list[int]
    answer: list[int]
    distance: list[float]

    def entries(self, origin: Origin) -> list[Entry]:
        """As a corpus keeps them."""
        return [
            Entry(
                original=content_digest(row),
                label=label,
                answer=answer,
                attack=Square.__name__,
                access="gradients",
                distance=distance,
                origin=origin,
            )
            for row, label, answer, distance in zip(
                self.x, self.label, self.answer, self.distance, strict=True
            )
        ]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Samples x (N, ...) and labels y to try ways on; random: the model answers at random."""

    x: Tensor
    y: Tensor
    threat: Threat
    seed: int
    batch: int
    random: bool = False

    def best(self, model: Model, *, through: bool, smooth: bool) -> tuple[Way, int]:
        """The way whose gradients fool most, the simplest of equals, and how many that are."""
        ways = list(self._ways(model, through=through, smooth=smooth))
        fooled = [self._fooled(APGD(steps=_STEPS, loss="pma"), way.model) for way in ways]
        return ways[int(np.argmax(fooled))], max(fooled)

    def insist(self, model: Model, spend: Spend) -> Examples | None:
        """What is found on those who are nearest to a mistake after a short try.

        A stand-in's gradient is not the model's own: ways from other starts end elsewhere, and from
        the nearest of these ends a search by scores goes on.
        None for goals without classes and regions in which no tries end.
        """
        bounded = np.isfinite(self.threat.describe()["eps"]).all()
        classes = isinstance(self.threat.goal, Untargeted | Targeted)
        if not (classes and bounded and self.threat.norm in APGD.norms):
            return None
        model = self._adapted(model)
        ends = self._ends(model, _STEPS, 0)
        margin = self._margin(model, ends)
        rows = _nearest(margin, spend.near)
        near, best, least = self.take(rows.cpu().numpy()), ends[rows], margin[rows]
        for number in range(1, 1 + _STARTS * spend.again):
            ends = near._ends(model, spend.margin_steps, number)
            margin = near._margin(model, ends)
            better = margin < least
            best[better], least[better] = ends[better], margin[better]
        rows = _nearest(least, spend.near // 2)
        near, best = near.take(rows.cpu().numpy()), best[rows]
        keys = sample_keys(near.x, near.y)
        starts = attacks.Examples(best.flatten(1).cpu().numpy(), keys.numpy())
        made = near._run(Onward(starts=starts, queries=spend.insist), model)
        good = made.success
        with model.held():
            answer = model.labels(made.x_adv)
        return Examples(
            x=near.x[good].cpu().numpy(),
            x_adv=made.x_adv[good].cpu().numpy(),
            label=near.y[good].tolist(),
            answer=answer[good].tolist(),
            distance=made.distance[good].tolist(),
        )

    def _ends(self, model: Model, steps: int, number: int) -> Tensor:
        """Where tries of so many steps end; number: of the starts."""
        attack, seed = APGD(steps=steps, loss="pma"), self.seed + number
        return craft(attack, model, self.x, self.y, self.threat, seed=seed, batch_size=self.batch)

    def _margin(self, model: Model, x: Tensor) -> Tensor:
        """How far points (N, ...) are from the goal, at most 0 where it is reached."""
        with model.held():
            scores = torch.cat([model.scores(part) for part in torch.split(x, self.batch)])
        return self.threat.goal.margin(scores, self.y)

    def take(self, rows: NDArray[np.intp]) -> Trial:
        """A trial on some of the samples."""
        return replace(self, x=self.x[rows], y=self.y[rows], threat=self.threat.take(rows))

    def by_queries(self, model: Model) -> int:
        """How many fall to queries alone."""
        if self.threat.norm not in Square.norms:
            return 0
        return self._fooled(Square(queries=_QUERIES), model)

    def _fooled(self, attack: Attack, model: Model) -> int:
        return int(self._run(attack, self._adapted(model)).success.sum())

    def _run(self, attack: Attack, model: Model) -> Result:
        return run(
            attack, model, self.x, self.y, self.threat, seed=self.seed, batch_size=self.batch
        )

    def _adapted(self, model: Model) -> Model:
        if self.random:
            model = averaged(model, _DRAWS)
        with model.held():
            raw = model.scores(self.x[: self.batch])
        if isinstance(self.threat.goal, Untargeted | Targeted):
            model, _ = adapt(model, raw)
        return model

    def _ways(self, model: Model, *, through: bool, smooth: bool) -> Iterator[Way]:
        if through:
            like = standing_in(model, self.x[: self.batch])
            straight = straight_through(model, stand_in=like)
            done = (
                "Gradients go straight through what cut them off: roundings, comparisons, "
                "detached tensors and steps without a gradient of their own (BPDA)."
            )
            if like is not None:
                done += (
                    f" A step outside torch answers nearly as {like.change}, whose gradient it has."
                )
            yield Way(model=straight, done=done)
        else:
            straight = model
        yield Way(
            model=model,
            done="Other gradients were tried, and fooled no more than the model's own."
            " These are kept.",
        )
        width = _width(self.threat, self.x[0].numel())
        if smooth and width is not None:
            for part in (1.0, 0.25):
                yield Way(
                    model=Smoothed(straight, width=part * width),
                    done=f"Losses and gradients are means over noise of up to {part * width:.3g} "
                    "around each input.",
                )


def _nearest(margin: Tensor, count: int) -> Tensor:
    """The rows (M,) that have reached the goal, and so many that are nearest to it."""
    return margin.argsort(stable=True)[: count + int((margin <= 0).sum())]


def pupil(model: Model, x: Tensor, seed: int) -> Model:
    """A small network taught by the model's answers to x (N, ...) and to points beside them."""
    with model.held():
        classes = model.scores(x[:1]).shape[1]
    return train_surrogate(model, x, _network(x, classes, seed), queries=_TAUGHT, seed=seed)


def _width(threat: Threat, features: int) -> float | None:
    """How far noise may go in each feature for half the radius in all; None where it may not."""
    eps = float(np.median(threat.describe()["eps"]))
    per_feature: dict[str, float] = {"linf": 1.0, "l2": math.sqrt(3 / features), "l1": 2 / features}
    if threat.norm not in per_feature or not 0 < eps < np.inf:
        return None
    return eps / 2 * per_feature[threat.norm]


def _network(x: Tensor, classes: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if x.ndim != 4 or min(x.shape[2:]) < _SIDE:
            hidden = [nn.Flatten(), nn.Linear(x[0].numel(), 256), nn.ReLU()]
            return nn.Sequential(*hidden, nn.Linear(256, classes)).to(x.device)
        rows, columns = (-(-side // 4) for side in x.shape[2:])
        return nn.Sequential(
            nn.Conv2d(x.shape[1], 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * rows * columns, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        ).to(x.device)
