"""The main job: the worst case of a model under a threat, with the proof and its cost."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import ConfigError, ModelError
from .._version import __version__
from ..attacks import Attack, Checkpoint, Result, Square, run
from ..attacks import sample_keys as keys_of
from ..data import Dataset
from ..models import HttpModel, Model, adapt, describe
from ..threat import Budget, MultiLabel, Regression, Targeted, Threat
from ._cascade import PRESETS, again, cascade, sweep, weakest
from ._found import Found
from ._preflight import check_clean, check_domain
from ._probe import Probe, probe
from ._report import Cost, Report, Stage
from ._summary import Facts, summarise
from ._trust import RUGGED

_PROBED = 64


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the running stage is: samples done of all, and fooled so far in the evaluation."""

    stage: str
    done: int
    total: int
    fooled: int


def evaluate(
    model: Model,
    data: Dataset,
    threat: Threat,
    *,
    preset: str = "standard",
    seed: int = 0,
    budget: Budget | None = None,
    batch_size: int = 64,
    severity: Sequence[Sequence[float]] | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Attack a model on data in the worst way the threat allows, cheap attacks before dear ones.

    preset: smoke, standard or thorough. budget: what may be spent on each sample, and seconds in
    all; what was not finished counts as robust and is said. severity: cost (K, K) of each answer,
    true class by answer. checkpoint: a file from which the same call goes on. Raises a
    WithstandError for what cannot be evaluated, such as a clean accuracy at chance.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}; it is one of {', '.join(PRESETS)}")
    if not isinstance(model, Model):
        raise ModelError(
            f"the model is a {type(model).__name__}; wrap it first, e.g. "
            "TorchModel(net, domain=(0, 1))"
        )
    running = _Evaluation(model, data, threat, preset, seed, budget or Budget(), batch_size)
    running.progress = progress
    with running.model.held():
        running.begin(checkpoint)
        running.attack()
        report = summarise(running.facts(), severity)
    if running.checkpoint is not None:
        running.checkpoint.remove()
    return report


class _Evaluation:
    progress: Callable[[Progress], None] | None = None
    checkpoint: Checkpoint | None = None

    def __init__(
        self,
        model: Model,
        data: Dataset,
        threat: Threat,
        preset: str,
        seed: int,
        budget: Budget,
        batch_size: int,
    ) -> None:
        self.model, self.data, self.threat, self.seed = model, data, threat, seed
        self.served = model
        self.preset, self.spend = preset, PRESETS[preset]
        self.budget, self.batch = budget, batch_size
        device = getattr(model, "device", torch.device("cpu"))
        self.x = torch.from_numpy(np.ascontiguousarray(data.x)).to(device)
        self.y = torch.from_numpy(np.ascontiguousarray(data.y)).to(device)
        self.access = weakest(model.access, threat.access)
        self.began, self.cpu = time.monotonic(), time.process_time()
        self.earlier = Cost()
        self.stages: list[Stage] = []
        self.restored: list[Stage] = []
        self.found = Found.nothing(self.x)
        # What the evaluation itself asked: a first look, and the answers to the examples.
        self.asked, self.asked_back = 0, 0
        self.probe: Probe | None = None
        self.missed: float | None = None
        self.swept = False
        self.notes: list[str] = []

    def begin(self, checkpoint: str | Path | None) -> None:
        """The clean answers, what they say about the model, and what an earlier run has reached."""
        check_domain(self.model, self.x)
        clean = self._ask_clean()
        self.batch_invariant = True
        answers = self._answers(clean)
        self.correct = ~self.threat.goal.hit(answers, self.y).cpu()
        if isinstance(self.threat.goal, Targeted):
            # Another wrong answer than the wanted one is no right one either.
            self.correct &= (answers == self.y).cpu()
        self.clean_answer = answers.cpu()
        self.classes = clean.shape[1] if clean.ndim == 2 else int(clean.max()) + 1
        check_clean(self.threat.goal, clean, answers, self.y, self.classes)
        self.keys = keys_of(self.x, self.y)
        self.found.distance[~self.correct] = 0.0
        if checkpoint is not None:
            self.checkpoint = Checkpoint(checkpoint, self._fingerprint(clean))
            self._charge(self.checkpoint)
            self._restore()
        if self.access == "gradients":
            self._look(clean)

    def attack(self) -> None:
        """The cascade on those who withstand, the sweep for the curve, then the near misses."""
        for attack in cascade(self.spend, self.threat, self.access, self.classes):
            self._follow(attack)
        curve = sweep(self.spend, self.threat, self.access)
        if curve is not None and not self._blind:
            _, asked = self._run(curve, minimum=True)
            self.swept = asked > 0
        for number, attack in enumerate(again(self.spend, self.threat, self.access)):
            self._follow(attack, near=self.spend.near, seed=self.seed + 1 + number)
        self._query()

    @property
    def _blind(self) -> bool:
        return self.probe is not None and self.probe.zero_gradients > 0.95

    def _follow(self, attack: Attack, *, near: int | None = None, seed: int | None = None) -> None:
        """A stage, unless it has no gradients to follow."""
        saturated = self.probe is not None and self.probe.saturated > 0.5
        if attack.needs == "gradients" and self._blind:
            self._skip(attack, "left out: the model has no gradients to follow")
        elif attack.needs == "gradients" and saturated and getattr(attack, "loss", "") == "ce":
            self._skip(attack, "left out: cross-entropy has no gradient on this model")
        else:
            self._run(attack, near=near, seed=seed)

    def _ask_clean(self) -> Tensor:
        if self.access == "labels":
            ask = self.model.labels
        else:
            raw = self.model.scores(self.x[: self.batch])
            self.asked += len(raw)
            if not isinstance(self.threat.goal, Regression | MultiLabel):
                self.model, notes = adapt(self.model, raw)
                self.notes += notes
            ask = self.model.scores
        return torch.cat([ask(part) for part in torch.split(self.x, self.batch)])

    def _answers(self, clean: Tensor) -> Tensor:
        return clean if self.access == "labels" else self.threat.goal.decide(clean)

    def _fingerprint(self, clean: Tensor) -> str:
        told = (
            __version__, describe(self.model), self.data.provenance.digest, self.threat.describe(),
            self.preset, self.spend, self.seed, self.batch, self.budget.forwards,
            self.budget.backwards,
        )  # fmt: skip
        digest = hashlib.blake2b(repr(told).encode(), digest_size=16)
        for part in self.threat.region:
            for name, value in vars(part).items():
                digest.update(name.encode() + np.asarray(value).tobytes())
        digest.update(clean.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _look(self, clean: Tensor) -> None:
        chosen = self.correct.nonzero()[:_PROBED, 0]
        if not len(chosen):
            return
        self.probe = probe(
            self.model, self.threat.goal, self.x[chosen], self.y[chosen], clean[chosen]
        )
        self.asked += 2 * len(chosen)
        self.asked_back += 2 * len(chosen)

    def _query(self) -> None:
        """The black-box part, sized by what the gradients look like."""
        if self.threat.norm not in Square.norms or self.probe is None:
            return
        full = Square(queries=self.spend.queries)
        if self.probe.zero_gradients > 0.05:
            self._run(full)
            return
        near = self.spend.near
        fooled, asked = self._run(Square(queries=self.spend.probe), near=near)
        if fooled > 0.1 * asked:
            self._run(full)
        elif self.missed is not None and self.missed > RUGGED:
            insist = Square(queries=self.spend.insist)
            self._run(insist, near=near // 4, seed=self.seed + 1)

    def _alive(self) -> Tensor:
        return self.correct & ~self.found.fooled

    def _seconds_left(self) -> float | None:
        if self.budget.seconds is None:
            return None
        return self.budget.seconds - self.earlier.wall_seconds - (time.monotonic() - self.began)

    def _skip(self, attack: Attack, note: str) -> None:
        if not self._known():
            self.stages.append(_stage(attack, 0, 0, Cost(), note))

    def _known(self) -> bool:
        """Whether the next stage was already done before an interruption."""
        if self.restored:
            self.stages.append(self.restored.pop(0))
            return True
        return False

    def _run(
        self,
        attack: Attack,
        *,
        minimum: bool = False,
        near: int | None = None,
        seed: int | None = None,
    ) -> tuple[int, int]:
        """One stage on those who withstand, or on all right ones: fooled, and of how many."""
        if self._known():
            return self.stages[-1].fooled, self.stages[-1].samples
        index = (self.correct if minimum else self._alive()).nonzero()[:, 0]
        if near is not None:
            index = index[self.found.distance[index].argsort(stable=True)[:near]]
        seconds = self._seconds_left()
        if not len(index) or (seconds is not None and seconds <= 0):
            note = "nobody left to attack" if not len(index) else "left out: no time left"
            self.found.unfinished[index[~self.found.fooled[index]]] = True
            self.stages.append(_stage(attack, len(index), 0, Cost(), note))
            return 0, len(index)
        threat = self.threat.take(index.numpy())
        before = self._cost()
        result = run(
            attack,
            self.model,
            self.x[index],
            self.y[index],
            replace(threat.unbounded() if minimum else threat, access=self.access),
            seed=self.seed if seed is None else seed,
            budget=replace(self.budget, seconds=seconds),
            batch_size=self.batch,
            keys=self.keys[index],
            known=self.found.ledger(index),
            checkpoint=self.checkpoint,
            progress=self._tell(attack),
        )
        fooled = self._merge(index, result, minimum)
        cost = self._cost() - before
        cut = int(self.found.unfinished[index].sum())
        note = f"the budget ended {cut} samples early" if cut and not minimum else ""
        self.stages.append(_stage(attack, len(index), fooled, cost, note))
        self._save()
        return fooled, len(index)

    def _merge(self, index: Tensor, result: Result, minimum: bool) -> int:
        self.batch_invariant &= result.batch_invariant
        inside = torch.from_numpy(
            self.threat.take(index.numpy()).region.contains(
                self.x[index].cpu().numpy(), result.x_adv.cpu().numpy()
            )
        )
        earlier = self.found.fooled[index]
        if minimum and bool(earlier.any()):
            self.missed = float((~(result.success.cpu() & inside)[earlier]).float().mean())
        fooled = self.found.merge(index, result, inside, len(self.stages))
        if not minimum:
            self.found.cut_short(index, result, self.threat.queries)
        return fooled

    def _tell(self, attack: Attack) -> Callable[[int, int, int], None] | None:
        if self.progress is None:
            return None
        told, name, before = self.progress, _name(attack), int(self.found.fooled.sum())

        def tell(done: int, total: int, fooled: int) -> None:
            told(Progress(stage=name, done=done, total=total, fooled=before + fooled))

        return tell

    def _cost(self) -> Cost:
        return Cost(
            forwards=int(self.found.forwards.sum()) + self.asked,
            backwards=int(self.found.backwards.sum()) + self.asked_back,
            cpu_seconds=self.earlier.cpu_seconds + time.process_time() - self.cpu,
            wall_seconds=self.earlier.wall_seconds + time.monotonic() - self.began,
        )

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        stages = [asdict(stage) for stage in self.stages]
        self.checkpoint.save(
            {
                "run": None,
                "stages": stages,
                "cost": asdict(self._cost()),
                "invariant": self.batch_invariant,
                "missed": self.missed,
                **self.found.content(),
            }
        )

    def _charge(self, checkpoint: Checkpoint) -> None:
        """A cap on what is sent to a served model holds over interruptions too."""
        served = self.served
        if isinstance(served, HttpModel):
            served.charge(int(checkpoint.content.get("sent", 0)))
            checkpoint.always = lambda: {"sent": served.sent}

    def _restore(self) -> None:
        assert self.checkpoint is not None
        saved = self.checkpoint.content
        if "stages" not in saved:
            return
        self.found = Found.restored(saved)
        self.restored = [Stage(**{**s, "cost": Cost(**s["cost"])}) for s in saved["stages"]]
        self.earlier = Cost(**saved["cost"])
        self.batch_invariant, self.missed = saved["invariant"], saved.get("missed")

    def facts(self) -> Facts:
        """All that was found, with the answers that the examples get."""
        low, high = np.min(self.model.domain.lower), np.max(self.model.domain.upper)
        answers = self._adversarial_answer()
        notes = list(self.notes)
        if not self.batch_invariant:
            notes.append(
                "The model's kernels answer a row differently in other batches: examples are the "
                "same only for the same batch size and order."
            )
        return Facts(
            data=self.data,
            threat=self.threat,
            access=self.access,
            domain=(float(low), float(high)),
            x=self.x,
            found=self.found,
            correct=self.correct,
            clean_answer=self.clean_answer,
            adversarial_answer=answers,
            stages=tuple(self.stages),
            probe=self.probe,
            missed=self.missed,
            swept=self.swept,
            cost=self._cost(),
            provenance=self._provenance(),
            notes=tuple(notes),
        )

    def _adversarial_answer(self) -> Tensor:
        answers = self.clean_answer.clone()
        ask = self.model.labels if self.access == "labels" else self.model.scores
        fooled = self.found.fooled.nonzero()[:, 0]
        self.asked += len(fooled)
        for part in torch.split(fooled, self.batch) if len(fooled) else ():
            given = self._answers(ask(self.found.x_adv[part]))
            answers[part] = given.cpu().to(answers.dtype)
        return answers

    def _provenance(self) -> dict[str, Any]:
        data = self.data.provenance
        return {
            "model": describe(self.model),
            "data": {**vars(data), "shape": list(data.shape)},
            "preset": self.preset,
            "seed": self.seed,
            "budget": {**vars(self.budget), "queries": self.threat.queries},
            "batch_size": self.batch,
            "batch_invariant": self.batch_invariant,
            "versions": {
                "withstand": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
            "device": str(self.x.device),
        }


def _name(attack: Attack) -> str:
    return type(attack).__name__


def _stage(attack: Attack, samples: int, fooled: int, cost: Cost, note: str) -> Stage:
    return Stage(
        name=_name(attack),
        settings=dict(vars(attack)),
        access=attack.needs,
        samples=samples,
        fooled=fooled,
        cost=cost,
        note=note,
    )
