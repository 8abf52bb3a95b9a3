"""The loop: steps, checks, rollback, choice of the best weights, and going on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._errors import DataError, ModelError
from ..attacks import Checkpoint
from ..evaluate import Progress
from ..threat import Box
from ._batches import Batch, Batches, derived
from ._contract import Moment, Proving, Recipe
from ._cost import Meter
from ._guard import Guard, checks, watched
from ._layout import lay, quickest
from ._learner import Learner
from ._pgd import PGD
from ._result import Alarm, Epoch
from ._schedule import Schedule
from ._several import withstanding
from ._standard import Standard
from ._tally import Tally
from ._watch import withstood

if TYPE_CHECKING:
    from torch.optim import Optimizer

Callback = Callable[[Epoch, nn.Module], bool | None]
_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `harden` was asked for."""

    epochs: int
    schedule: Schedule
    ema: float
    smoothing: float
    growth: float
    start: float
    guard: bool
    patience: int | None
    seed: int
    domain: Box


class Training:
    """One training of a net, from the step where a checkpoint left it."""

    def __init__(
        self,
        net: nn.Module,
        recipe: Recipe,
        batches: Batches,
        judged: Batch,
        settings: Settings,
        optimizer: Callable[[Any], Optimizer],
    ) -> None:
        self.net, self.recipe, self.batches, self.settings = net, recipe, batches, settings
        self.device = next((p.device for p in net.parameters()), torch.device("cpu"))
        # Data and nets come in single or double precision; the net's own counts.
        kinds = {p.dtype for p in net.parameters()} & {torch.float32, torch.float64}
        self.dtype = kinds.pop() if len(kinds) == 1 else judged[0].dtype
        self.normed = any(isinstance(part, _BatchNorm) for part in net.modules())
        self.judged = self._placed(*judged)
        self.layout = quickest(net, self.judged[0][:8])
        lay(net, self.layout)
        self.learner = Learner(net, optimizer, settings.ema)
        self.meter = Meter(net, optimizer)
        self.count = batches.count
        self.total = self.count * settings.epochs
        self.checks = checks(self.count)
        self.guard: Guard | None = None
        if settings.guard and recipe.regions:
            some = batches.some(watched(self.count * batches.batch_size))
            self.guard = Guard(*self._placed(*some), recipe.regions)
        # PGD of so many steps stands in for the recipe until then.
        self.rescue, self.until = 2, 0
        self.history: list[Epoch] = []
        self.alarms: list[Alarm] = []
        self.best: dict[str, Any] = {}
        # What the best epoch at the full radius reached, and the epochs since.
        self.reached: list[int] = []
        self.stale = 0
        self.good = self.learner.now()
        self._tally = Tally(self.device)
        self._tallied: list[list[float]] = []
        self._last, self._scale = recipe, 0.0

    def run(
        self,
        checkpoint: Checkpoint | None,
        callbacks: Sequence[Callback],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Train to the end; the net then has the best weights."""
        if checkpoint is not None and checkpoint.content:
            self._restore(checkpoint.content)
        cuda = [self.device] if self.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=cuda),
            self.meter.counting(*self.learner.nets.values()),
        ):
            ended = False
            while self.learner.step < self.total and not ended and not self._stalled:
                self._epoch(checkpoint, progress)
                if checkpoint is not None and checkpoint.due:
                    checkpoint.save(self.content())
                ended = self._told(callbacks)
        if checkpoint is not None and not ended:
            checkpoint.save(self.content())
        self.net.load_state_dict(self.best["net"])
        lay(self.net, torch.contiguous_format)
        self.net.eval()

    @property
    def _stalled(self) -> bool:
        """Whether so many epochs have brought nothing better that the training ends."""
        patience = self.settings.patience
        return patience is not None and self.stale >= patience

    def _told(self, callbacks: Sequence[Callback]) -> bool:
        """Whether a callback ends the training; they see the net laid out as usual."""
        lay(self.net, torch.contiguous_format)
        answers = [callback(self.history[-1], self.net) for callback in callbacks]
        lay(self.net, self.layout)
        return any(answers)

    def _epoch(
        self, checkpoint: Checkpoint | None, progress: Callable[[Progress], None] | None
    ) -> None:
        """One epoch, or what is left of it."""
        number, first = divmod(self.learner.step, self.count)
        batches = self.batches.epoch(number, first)
        for place in range(first, self.count):
            with self.meter.fetch():
                batch = next(batches, None)
            # Each step has its own seeds, so that an interrupted training goes on as it would have.
            self._seed(derived(self.settings.seed, "torch", self.learner.step))
            if batch is None:
                raise DataError(
                    f"the loader ended after {place} of {self.count} batches; give one whose "
                    "length holds in every epoch"
                )
            x, y = self._placed(*batch)
            if len(x) == 1 and self.normed:
                raise DataError(
                    f"batch {place + 1} has 1 sample, of which batch norm takes no spread; give "
                    "another batch_size, or drop_last=True to the loader"
                )
            self._learn(x, y)
            self.meter.step(x, y, place, self.count)
            if progress is not None:
                stage = f"epoch {number + 1} of {self.settings.epochs}"
                progress(Progress(stage=stage, done=self.learner.step, total=self.total, fooled=0))
            if (place + 1) * self.checks // self.count == place * self.checks // self.count:
                continue
            self._check()
            if place + 1 < self.count and checkpoint is not None and checkpoint.due:
                checkpoint.save(self.content())
        self.history.append(self._judge(number + 1))

    def _learn(self, x: Tensor, y: Tensor) -> None:
        """One step."""
        at = self._at()
        self.net.train()
        recipe = self._recipe()
        lost = recipe.loss(self.net, x, y, at)
        self._last, self._scale = recipe, at.scale
        self.learner.learn(lost.loss, self.settings.schedule(at.done))
        self._tally.add(lost.loss, lost.scores, y)

    def _at(self, *purpose: object) -> Moment:
        """The moment of the next step, or of a look at the net, whose noise is its own."""
        settings, step = self.settings, self.learner.step
        noise = torch.Generator(self.device)
        noise.manual_seed(derived(settings.seed, "noise", step, *purpose))
        done = min(1.0, (step + 0.5) / self.total)
        grown = (done - settings.start) / settings.growth if settings.growth else 1.0
        return Moment(
            done=done,
            scale=min(1.0, max(0.0, grown)),
            noise=noise,
            domain=settings.domain,
            smoothing=settings.smoothing,
        )

    @property
    def _begun(self) -> bool:
        """Whether the attacker has come in, which happens right after a check."""
        first = round(self.settings.start * self.settings.epochs * self.checks)
        epoch, part = divmod(first, self.checks)
        return self.learner.step >= epoch * self.count + -(-part * self.count // self.checks)

    def _recipe(self) -> Recipe:
        """What is trained with now."""
        if not self._begun:
            return Standard()
        if self.learner.step >= self.until:
            return self.recipe
        regions = self.recipe.regions
        return PGD(region=regions[self.learner.step % len(regions)], steps=self.rescue)

    def _check(self) -> None:
        """Look for overfitting to single steps; where there is any, go back to the last good
        weights and on with more steps."""
        loss, own, asked = self._tally.read()
        place = self.learner.step / self.count
        if not isfinite(loss):
            raise ModelError(
                f"the loss is {loss} after {place:.2f} epochs; give a lower learning rate, or let "
                "the radius grow"
            )
        self._tallied.append([loss, own, asked])
        why = None
        if self.guard is not None and self._begun:
            why = self.guard.wrong(self.guard.look(self.net, own, self._at("look")))
        if why is None:
            self.good = self.learner.now()
            return
        # More steps where these are too few as well; a recipe that overfits again is left alone.
        self.rescue = 2 * self.rescue if self._last is not self.recipe else 2
        again = self.total if self.alarms else self.learner.step + self.count
        self.until = min(self.total, again)
        self.alarms.append(
            Alarm(
                epoch=place,
                why=why,
                back=self.good["step"] / self.count,
                lost=self.learner.step - self.good["step"],
                steps=self.rescue,
                until=self.until / self.count,
            )
        )
        self.learner.go_back(self.good)

    def _judge(self, number: int) -> Epoch:
        """How well the net does on what was held out; the best weights are kept.

        Proofs count first where the recipe makes any. The average is nearly always the better one:
        before the end the last weights are looked at too only where that adds at most a tenth of a
        gradient pass for each sample trained on.
        """
        x, y = self.judged
        attacked = bool(self._last.regions or withstanding(self._last))
        regions = self.recipe.regions if attacked else ()
        nets = self.learner.nets
        looks = len(self.recipe.regions) + len(withstanding(self.recipe))
        looks += isinstance(self.recipe, Proving)
        asked = sum(n for *_, n in self._tallied)
        dear = 10 * _STEPS * looks * len(x) > asked
        if dear and self.learner.average is not None and self.learner.step < self.total:
            del nets["last"]
        found, standings = {}, []
        for name, net in nets.items():
            at = replace(self._at("judge"), scale=1.0)
            seen = withstood(net, x, y, regions, at, steps=_STEPS)
            multi = seen.multi
            for one in withstanding(self.recipe) if attacked else ():
                multi = multi & one.withstands(net, x, y, at)
            found[name] = (int(multi.sum()), int(seen.clean.sum()))
            proven = 0
            if attacked and isinstance(self.recipe, Proving):
                proven = int(self.recipe.proven(net, x, y, at).sum())
            standing = [int(attacked), proven, *found[name]]
            standings.append(standing)
            if not self.best or standing >= self.best["standing"]:
                state = deepcopy(net.state_dict())
                self.best = {"standing": standing, "epoch": number, "weights": name, "net": state}
        self._wait(max(standings))
        loss, own = (sum(row[i] * row[2] for row in self._tallied) / asked for i in (0, 1))
        self._tallied = []
        name = max(found, key=lambda name: found[name])
        return Epoch(
            number=number,
            recipe=type(self._last).__name__,
            scale=self._scale if attacked else 0.0,
            loss=loss,
            accuracy=own,
            clean=found[name][1] / len(x),
            robust=found[name][0] / len(x) if attacked else None,
            weights=name,
            factor=self.meter.factor,
        )

    def _wait(self, standing: list[int]) -> None:
        """Count the epochs since a better one, of those at the full radius if there is one."""
        attacked, proven, robust, clean = standing
        if attacked and self._scale < 1:
            return
        if not attacked and (self.recipe.regions or withstanding(self.recipe)):
            return
        reached = [proven, robust] if attacked else [clean]
        if reached > self.reached:
            self.reached, self.stale = reached, 0
        else:
            self.stale += 1

    def _seed(self, seed: int) -> None:
        """Seed what a net draws from."""
        if self.device.type == "cpu":
            # Of torch's own way three quarters go into traces for accelerators that are not there.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _placed(self, x: Tensor, y: Tensor) -> Batch:
        return x.to(self.device, self.dtype), y.to(self.device)

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "now": self.learner.now(),
            "good": self.good,
            "best": self.best,
            "patience": [self.reached, self.stale],
            "rescue": [self.rescue, self.until],
            "history": [asdict(epoch) for epoch in self.history],
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "tallied": self._tallied,
            "guard": self.guard.content() if self.guard else None,
            "meter": self.meter.content(),
        }

    def _restore(self, content: dict[str, Any]) -> None:
        self.learner.go_back(content["now"])
        self.learner.step = content["now"]["step"]
        self.good, self.best = content["good"], content["best"]
        self.reached, self.stale = content["patience"]
        self.rescue, self.until = content["rescue"]
        self.history = [Epoch(**epoch) for epoch in content["history"]]
        self.alarms = [Alarm(**alarm) for alarm in content["alarms"]]
        self._tallied = content["tallied"]
        if self.guard is not None:
            self.guard.restore(content.get("guard"))
        self.meter.restore(content["meter"])
