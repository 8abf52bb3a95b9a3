"""One attack after the other, on the samples that still withstand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..attacks import Attack, Cuts, Result, Rows, run
from ..evidence import Corpus, Entry
from ..models import Model
from ..threat import Access, Budget, Evading, Targeted, Threat
from ._answers import Answers
from ._record import Record
from ._replay import Replay, show, stored
from ._report import Cost, Stage
from ._transfer import Shown, transfer

_Tell = Callable[[int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the running stage is: samples done of all, and fooled so far in the evaluation."""

    stage: str
    done: int
    total: int
    fooled: int


@dataclass(kw_only=True)
class Stages:
    """Runs stages and records them; tensors hold one entry for each sample (N, ...).

    clean: the model's answers to x, and correct: which of them are right. served: the model that
    the attacked one stands for, which is asked about every success.
    """

    answers: Answers
    x: Tensor
    y: Tensor
    keys: Tensor
    clean: Tensor
    correct: Tensor
    threat: Threat
    access: Access
    seed: int
    budget: Budget
    record: Record
    progress: Callable[[Progress], None] | None
    served: Answers | None = None

    def attack(
        self,
        attack: Attack,
        *,
        near: int | None = None,
        seed: int | None = None,
        kept: bool = True,
        manner: str = "",
        model: Model | None = None,
    ) -> tuple[int, int]:
        """Attack those who withstand, or the `near` ones of them: fooled, and of how many.

        kept: in the checkpoint, so that it is not done again. manner: told before the attack's
        name. model: what is attacked in the model's place; what fools it is asked again.
        """
        index = self._alive()
        if near is not None:
            index = index[self.record.found.distance[index].argsort(stable=True)[:near]]
        work = partial(self._attacked, attack, index, seed=seed, kept=kept, model=model)
        return self._stage(attack, index, work, kept=kept, manner=manner)

    def fooled_or_not(self) -> tuple[Tensor, Tensor]:
        """The samples that are right by themselves and have been fooled so far, and those not."""
        fooled = self.correct & self.record.found.fooled
        return fooled.nonzero()[:, 0], self._alive()

    def sweep(self, attack: Attack, index: Tensor) -> int:
        """Look for the smallest change of some samples; returns how many they are."""
        work = partial(self._attacked, attack, index, minimum=True)
        return self._stage(attack, index, work, minimum=True)[1]

    def cheapen(self, attack: Attack, index: Tensor) -> None:
        """Replace the examples of some samples by those of less effort that the attack finds."""
        work = partial(self._attacked, attack, index)
        self._stage(attack, index, work, cheaper=True)

    def transfer(self, attack: Attack, source: Model, name: str) -> None:
        """Show those who withstand the examples that the attack makes on a surrogate."""
        index = self._alive()
        self._stage(attack, index, partial(self._shown, attack, index, source, name), name=name)

    def replay(self, replay: Replay, corpus: Corpus) -> None:
        """Show those who withstand the examples that a corpus keeps of them."""
        index = self._alive()
        threat = self.threat.take(index.numpy()).within(self.answers.model.domain)
        kept = stored(replay, corpus, self.x[index], threat)
        some = torch.tensor([bool(entries) for entries in kept], dtype=torch.bool)
        if some.any():
            chosen, index = [entries for entries in kept if entries], index[some]
            self._stage(replay, index, partial(self._replayed, replay, corpus, chosen, index))
        else:
            self.skip(replay, "the corpus keeps no example that is in these samples' region")

    def skip(self, attack: Attack | Replay, note: str) -> None:
        """Leave a stage out, and say why."""
        if not self.record.known():
            self.record.stages.append(_stage(attack, 0, 0, Cost(), note))

    def telling(self, name: str) -> Callable[[int, int], None] | None:
        """What tells how far other work than an attack is."""
        tell = self._tell(name)
        return None if tell is None else lambda done, total: tell(done, total, 0)

    def _alive(self) -> Tensor:
        alive = self.correct & ~self.record.found.fooled
        goal = self.threat.goal.goal if isinstance(self.threat.goal, Evading) else self.threat.goal
        if isinstance(goal, Targeted):
            # Who is of the wanted class already is nobody's target.
            alive &= self.y.cpu() != goal.target
        return alive.nonzero()[:, 0]

    def _stage(
        self,
        attack: Attack | Replay,
        index: Tensor,
        work: Callable[[float | None], Shown],
        *,
        minimum: bool = False,
        cheaper: bool = False,
        name: str = "",
        kept: bool = True,
        manner: str = "",
    ) -> tuple[int, int]:
        record, found = self.record, self.record.found
        if kept and record.known():
            return record.stages[-1].fooled, record.stages[-1].samples
        seconds = self.budget.seconds
        left = None if seconds is None else seconds - record.cost().wall_seconds
        if not len(index) or (left is not None and left <= 0):
            note = "nobody left to attack" if not len(index) else "left out: no time left"
            found.unfinished[index[~found.fooled[index]]] = True
            record.stages.append(_stage(attack, len(index), 0, Cost(), note, name, manner))
            return 0, len(index)
        before = record.cost()
        if cheaper:
            fooled = 0
            self._replace(index, work(left).result)
        else:
            fooled = self._merge(index, work(left), minimum)
        cut = int(found.unfinished[index].sum())
        note = f"the budget ended {cut} samples early" if cut and not minimum else ""
        cost = record.cost() - before
        record.stages.append(_stage(attack, len(index), fooled, cost, note, name, manner))
        if kept:
            record.save()
        return fooled, len(index)

    def _attacked(
        self,
        attack: Attack,
        index: Tensor,
        seconds: float | None,
        *,
        minimum: bool = False,
        seed: int | None = None,
        kept: bool = True,
        model: Model | None = None,
    ) -> Shown:
        threat = self.threat.take(index.numpy())
        result = run(
            attack,
            model or self.answers.model,
            self.x[index],
            self.y[index],
            replace(threat.unbounded() if minimum else threat, access=self.access),
            seed=self.seed if seed is None else seed,
            budget=replace(self.budget, seconds=seconds),
            batch_size=self.answers.batch,
            keys=self.keys[index],
            known=self.record.found.ledger(index),
            checkpoint=self.record.checkpoint if kept else None,
            progress=self._tell(_name(attack)),
        )
        judge = self.answers if self.served is None and model is not None else self.served
        return Shown(self._verified(result, index, judge), None)

    def _verified(self, result: Result, index: Tensor, judge: Answers | None) -> Result:
        """What fools the judge as well: another model was attacked in its place."""
        if judge is None or not bool(result.success.any()):
            return result
        success = result.success.clone()
        rows = success.nonzero()[:, 0]
        _, success[rows] = judge.judged(result.x_adv[rows], self.y[index[rows]])
        self.record.verified += len(rows)
        distance = torch.where(success, result.distance, torch.inf)
        return replace(result, success=success, distance=distance)

    def _shown(
        self, attack: Attack, index: Tensor, source: Model, name: str, seconds: float | None
    ) -> Shown:
        return transfer(
            attack,
            source,
            self.answers,
            self.x[index],
            self.y[index],
            self.threat.take(index.numpy()),
            clean=self.clean[index],
            seed=self.seed,
            keys=self.keys[index],
            known=self.record.found.ledger(index),
            limit=self._limit,
            seconds=seconds,
            checkpoint=self.record.checkpoint,
            spent=self.record.spent,
            progress=self._tell(_name(attack, name)),
        )

    def _replayed(
        self,
        replay: Replay,
        corpus: Corpus,
        kept: list[list[Entry]],
        index: Tensor,
        seconds: float | None,
    ) -> Shown:
        return show(
            replay,
            corpus,
            kept,
            self.answers,
            self.x[index],
            self.y[index],
            self.threat.take(index.numpy()).within(self.answers.model.domain),
            clean=self.clean[index],
            known=self.record.found.ledger(index),
            limit=self._limit,
            seconds=seconds,
            checkpoint=self.record.checkpoint,
            progress=self._tell(_name(replay)),
        )

    @property
    def _limit(self) -> int | None:
        """The most forwards that a sample may have."""
        limits = [n for n in (self.threat.queries, self.budget.forwards) if n is not None]
        return min(limits, default=None)

    def _merge(self, index: Tensor, shown: Shown, minimum: bool) -> int:
        record, found, result = self.record, self.record.found, shown.result
        record.batch_invariant &= result.batch_invariant
        inside = torch.from_numpy(
            self.threat.take(index.numpy()).region.contains(
                self.x[index].cpu().numpy(), result.x_adv.cpu().numpy()
            )
        )
        earlier = found.fooled[index]
        if minimum and bool(earlier.any()):
            record.missed = float((~(result.success.cpu() & inside)[earlier]).float().mean())
        fooled = found.merge(index, result, inside, len(record.stages), shown.answer)
        if not minimum:
            found.cut_short(index, result, self.threat.queries)
        return fooled

    def _replace(self, index: Tensor, result: Result) -> None:
        inside = self.threat.take(index.numpy()).region.contains(
            self.x[index].cpu().numpy(), result.x_adv.cpu().numpy()
        )
        good = result.success.cpu() & torch.from_numpy(inside)
        self.record.batch_invariant &= result.batch_invariant
        self.record.found.replace(index, result, good, len(self.record.stages))

    def _tell(self, name: str) -> _Tell | None:
        if self.progress is None:
            return None
        told, before = self.progress, int(self.record.found.fooled.sum())

        def tell(done: int, total: int, fooled: int) -> None:
            told(Progress(stage=name, done=done, total=total, fooled=before + fooled))

        return tell


def _name(attack: Attack | Replay, source: str = "", manner: str = "") -> str:
    name = f"{manner} {type(attack).__name__}".lstrip()
    return f"transfer from {source} ({name})" if source else name


def _stage(
    attack: Attack | Replay,
    samples: int,
    fooled: int,
    cost: Cost,
    note: str,
    source: str = "",
    manner: str = "",
) -> Stage:
    return Stage(
        name=_name(attack, source, manner),
        # Rows that an attack begins with are told in short, and checkpoints hold plain values.
        settings={
            name: repr(value) if isinstance(value, Rows | Cuts) else value
            for name, value in vars(attack).items()
        },
        access="none" if source else attack.needs,
        samples=samples,
        fooled=fooled,
        cost=cost,
        note=note,
        source=source,
    )
