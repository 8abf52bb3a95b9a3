"""The main job: the worst case of a model under a threat, with the proof and its cost."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from .._errors import ConfigError, DataError, ModelError, ThreatError
from .._version import __version__
from ..attacks import APGD, Attack, Donors, Square
from ..attacks import sample_keys as keys_of
from ..data import Dataset
from ..evidence import Corpus
from ..models import Model, counted, describe, detects, rows_sent
from ..threat import Budget, Evading, Targeted, Threat, Untargeted, check_goal
from ._adaptive import Adaptation, judging
from ._answers import Answers
from ._cascade import PRESETS, RUGGED, SATURATED, again, cascade, crafted, sweep, weakest
from ._doubts import Doubts
from ._found import Found
from ._measures import check_severity
from ._memory import Memory
from ._preflight import check_clean, check_domain
from ._record import Record
from ._report import Report
from ._stages import Progress, Stages
from ._summary import Facts, summarise
from ._surrogates import Surrogates, fit, sources, steady, together
from ._tables import Known, capability_of, cheaper, table_again, table_cascade


def evaluate(
    model: Model,
    data: Dataset,
    threat: Threat,
    *,
    preset: str = "standard",
    seed: int = 0,
    surrogates: Surrogates = (),
    corpus: Corpus | str | Path | None = None,
    budget: Budget | None = None,
    batch_size: int = 64,
    severity: Sequence[Sequence[float]] | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Attack a model on data in the worst way the threat allows, cheap attacks before dear ones.

    preset: smoke, standard or thorough. surrogates: models with gradients of the attacker's own, by
    name or in a row; examples made on them are shown to the model, once each. corpus: examples of
    earlier runs, of which those in the region are shown before all else, and to which those found
    here are added. budget: what may be spent on each sample, and seconds in all; what was not
    finished counts as robust and is said.
    severity: cost (K, K) of each answer, true class by answer. checkpoint: a file from which the
    same call goes on. Raises a WithstandError for what cannot be evaluated, such as a clean
    accuracy at chance.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}; it is one of {', '.join(PRESETS)}")
    if not isinstance(model, Model):
        raise ModelError(
            f"the model is a {type(model).__name__}; wrap it first, e.g. "
            "TorchModel(net, domain=(0, 1))"
        )
    if not isinstance(data, Dataset):
        raise DataError(
            f"the data are a {type(data).__name__}; give arrays as withstand.data.from_arrays(x, y)"
        )
    if not isinstance(threat, Threat):
        raise ThreatError(
            f"the threat is a {type(threat).__name__}; wrap it, e.g. Threat(region=Linf(8 / 255))"
        )
    running = _Evaluation(
        model, data, threat, preset, seed, budget or Budget(), batch_size, surrogates, corpus
    )
    running.progress = progress
    with counted(model, checkpoint), model.held(), running.model.held():
        running.begin(checkpoint)
        if severity is not None:
            # Attackers may find more classes; what is known now is said before they are run.
            check_severity(severity, data.y, running.clean_answer.numpy())
        running.attack()
        report = summarise(running.facts(), severity)
    if running.record.checkpoint is not None:
        running.record.checkpoint.remove()
    return report


class _Evaluation:
    progress: Callable[[Progress], None] | None = None

    def __init__(
        self,
        model: Model,
        data: Dataset,
        threat: Threat,
        preset: str,
        seed: int,
        budget: Budget,
        batch_size: int,
        surrogates: Surrogates,
        corpus: Corpus | str | Path | None,
    ) -> None:
        self.data, self.threat, self.seed = data, threat, seed
        self.served = self.plain = model
        self.adaptation = Adaptation.of(model, threat)
        self.model = self.adaptation.view or model
        self.preset, self.spend = preset, PRESETS[preset]
        self.budget, self.batch = budget, batch_size
        device = getattr(model, "device", torch.device("cpu"))
        self.x = torch.from_numpy(np.ascontiguousarray(data.x)).to(device)
        self.y = torch.from_numpy(np.ascontiguousarray(data.y)).to(device)
        self.access = weakest(self.model.access, threat.access)
        self.sources = sources(surrogates, model.domain)
        if self.access == "none" and not self.sources:
            raise ThreatError(
                "access is none and there are no surrogates to make examples on; give "
                "surrogates=[...] (surrogates: in withstand.yaml), or set access to labels, with "
                "which train_surrogate can make one"
            )
        self.crafts = crafted(self.spend, threat, self.x) if self.sources else []
        self.record = Record(self.sources)
        self.memory = None if corpus is None else Memory(corpus, self.access)
        threat.region.check(data.x)
        if isinstance(threat.goal, Evading) and not detects(model):
            raise ThreatError(
                f"the goal is {threat.goal.describe()}, and the model has no detector; give "
                "Detecting(model, detector, threshold=...), or the goal without it"
            )
        check_domain(model, self.x)
        self.doubts = Doubts.first(model, self.access, self.x, self.record)
        self.notes: list[str] = []

    def begin(self, checkpoint: str | Path | None) -> None:
        """The clean answers, what they say about the model, and what an earlier run has reached."""
        clean = self.clean = self._ask_clean()
        goal = self.threat.goal
        check_goal(goal, clean, self.y)
        answers = self.answers.read(clean)
        self.correct = ~goal.hit(answers, self.y).cpu()
        if isinstance(goal, Targeted):
            # Another wrong answer than the wanted one is no right one either.
            self.correct &= (answers == self.y).cpu()
        self.clean_answer = answers.cpu()
        self.adaptation.check(self.answers, self.plain, self.x)
        self.classes = clean.shape[1] if clean.ndim == 2 else int(clean.max()) + 1
        check_clean(goal, clean, answers, self.y, self.classes)
        self.record.found = Found.nothing(self.x, self.clean_answer, self.correct)
        fit(self.sources, self.x, self.y, goal, self.classes, clean.ndim == 2, self.batch)
        self.made_on = together(self.sources)
        self.record.batch_invariant = steady(self.made_on, self.x, self.batch)
        self.known: Known | None = None
        if capability_of(self.threat) is not None:
            self.known = Known.of(
                self.served, self.threat, self.x, self.clean_answer, self.data.others
            )
        self.stages = Stages(
            answers=self.answers,
            x=self.x,
            y=self.y,
            keys=keys_of(self.x, self.y),
            clean=self.clean_answer,
            correct=self.correct,
            threat=self.threat,
            access=self.access,
            seed=self.seed,
            budget=self.budget,
            record=self.record,
            progress=self.progress,
            served=self._verifying(),
        )
        if checkpoint is not None:
            self.record.open(checkpoint, self._fingerprint(clean))
            if self.memory is not None:
                self.memory.pin(self.record)
        if self.access == "gradients":
            self.doubts.look(self.stages, clean)

    def attack(self) -> None:
        """The cascade on those who withstand, the sweep for the curve, then the near misses."""
        self.adaptation.attack(self.stages)
        if self.memory is not None:
            self.memory.show(self.stages)
        attacks = self._cascade()
        # One question for each example is less than any search by questions, and more than noise.
        turn = len(attacks) if self.access == "gradients" else int(self.known is None)
        for attack in attacks[:turn]:
            self._follow(attack)
        if self.access != "gradients":
            self._transfer()
        for attack in attacks[turn:]:
            self._follow(attack)
        if not self.doubts.blind:
            self._sweep()
        for number, attack in enumerate(self._again()):
            fooled = self._follow(attack, near=self.spend.near, seed=self.seed + 1 + number)
            self.doubts.again = (self.doubts.again or 0) + fooled
        self._query()
        if self.access == "gradients":
            self._transfer()
            self.doubts.attack(self.stages, self.spend)
        if self.known is not None and self.access != "none":
            self._cheapen()

    def _cascade(self) -> list[Attack]:
        if self.known is None:
            return cascade(
                self.spend, self.threat, self.access, self.classes, donors=self._donors()
            )
        return table_cascade(self.spend, self.access, self.known)

    def _donors(self) -> Donors | None:
        """What an attacker by labels begins with: inputs by what the model says of them.

        Where a class is wanted those of it, and else where walks in L1 and L0 begin with others'.
        """
        goal, answer = self.threat.goal, self.clean_answer
        if self.access != "labels" or not isinstance(goal, Untargeted | Targeted):
            return None
        if isinstance(goal, Targeted):
            some = (answer == goal.target).numpy()
        else:
            some = np.full(len(answer), self.threat.norm in ("l1", "l0"))
        return Donors(self.x.cpu().numpy()[some], answer.numpy()[some]) if some.any() else None

    def _again(self) -> list[Attack]:
        if self.known is None:
            return again(self.spend, self.threat, self.access)
        return table_again(self.spend, self.access, self.known)

    def _cheapen(self) -> None:
        """Rows of a table that fool are brought back to what an attacker would pay for."""
        index, _ = self.stages.fooled_or_not()
        if len(index):
            x_adv = self.record.found.x_adv[index]
            self.stages.cheapen(cheaper(self.spend, x_adv, self.stages.keys[index]), index)

    def _sweep(self) -> None:
        """The smallest change for each, and first for those whose present one is too large."""
        for index, fooled in zip(self.stages.fooled_or_not(), (True, False), strict=True):
            attack = sweep(self.spend, self.threat, self.access, self.classes, fooled=fooled)
            if attack is not None:
                self.doubts.swept |= self.stages.sweep(attack, index) > 0

    def _transfer(self) -> None:
        """Examples made on all surrogates together, then on each."""
        for name, source in self.made_on:
            for attack in self.crafts:
                self.stages.transfer(attack, source, name)

    def _follow(self, attack: Attack, *, near: int | None = None, seed: int | None = None) -> int:
        """A stage, unless it has no gradients to follow; how many it fooled."""
        probe = self.doubts.probe
        if probe is not None and probe.saturated > SATURATED and _by_entropy(attack):
            attack = replace(attack, loss="tempered")
        if attack.needs == "gradients" and self.doubts.blind:
            self.stages.skip(attack, "left out: the model has no gradients to follow")
            return 0
        return self.stages.attack(attack, near=near, seed=seed)[0]

    def _ask_clean(self) -> Tensor:
        by_labels = self.access == "labels" or self.model.access in ("labels", "none")
        if not by_labels:
            raw = self.model.scores(self.x[: self.batch])
            self.record.asked += len(raw)
            self.model, notes = self.doubts.adapted(self.model, raw, self.threat)
            self.notes += notes
            if self.adaptation.plain is not None:
                self.plain, _ = self.doubts.adapted(self.adaptation.plain, raw, self.threat)
                self.adaptation.plain = self.plain
        self.answers = Answers(
            model=self.model, goal=self.threat.goal, labels=by_labels, batch=self.batch
        )
        return self.answers.raw(self.x)

    def _verifying(self) -> Answers | None:
        """Who is asked about each success: the served model, where another is attacked for it."""
        if self.adaptation.view is None or self.adaptation.random:
            return None
        return judging(self.answers, self.plain)

    def _fingerprint(self, clean: Tensor) -> str:
        told = (
            __version__, self._described(), self.data.provenance.digest, self.threat.describe(),
            self.preset, self.spend, self.seed, self.batch, self.budget.forwards,
            self.budget.backwards, [(source.name, source.described) for source in self.sources],
            self.memory is not None,
        )  # fmt: skip
        digest = hashlib.blake2b(repr(told).encode(), digest_size=16)
        for part in self.threat.region:
            digest.update(part.content())
        digest.update(clean.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _described(self) -> dict[str, Any]:
        # Where another stands for it in attacks, a report is still of the model handed in.
        return describe(self.model if self.adaptation.view is None else self.served)

    def _query(self) -> None:
        """The black-box part, sized by what the gradients look like."""
        probe = self.doubts.probe
        if self.threat.norm not in Square.norms or probe is None or self.known is not None:
            return
        full = Square(queries=self.spend.queries)
        if probe.zero_gradients > 0.05:
            self.stages.attack(full)
            return
        near = self.spend.near
        fooled, asked = self.stages.attack(Square(queries=self.spend.probe), near=near)
        if fooled > 0.1 * asked:
            self.stages.attack(full)
        elif self.record.missed is not None and self.record.missed > RUGGED:
            insist = Square(queries=self.spend.insist)
            self.stages.attack(insist, near=near // 4, seed=self.seed + 1)

    def facts(self) -> Facts:
        """All that was found, with the answers that the examples get."""
        low, high = np.min(self.model.domain.lower), np.max(self.model.domain.upper)
        self._answer_all()
        left_out = self.adaptation.left_out
        trust = self.doubts.judge(self.stages, self.clean, self.classes, left_out)
        if self.memory is not None:
            told, digest = describe(self.served), self.data.provenance.digest
            self.notes += self.memory.add(self.stages, model=told, data=digest)
        record, notes = self.record, list(self.notes)
        if not record.batch_invariant:
            notes.append(
                "The model's kernels answer a row differently in other batches: examples are the "
                "same only for the same batch size and order."
            )
        if (sent := rows_sent(self.served)) is not None:
            notes.append(
                f"The served model was sent {sent:,} rows so far, retries and failed requests "
                "included."
            )
        return Facts(
            data=self.data,
            threat=self.threat,
            access=self.access,
            domain=(float(low), float(high)),
            x=self.x,
            found=record.found,
            correct=self.correct,
            clean_answer=self.clean_answer,
            stages=tuple(record.stages),
            surrogates=tuple(source.told() for source in self.sources),
            trust=trust,
            defences=self.adaptation.told(self.served, self.stages),
            swept=self.doubts.swept,
            cost=record.cost(),
            provenance=self._provenance(),
            notes=tuple(notes),
            scores=None if self.clean.ndim == 1 else (self.clean, self.under),
        )

    def _answer_all(self) -> None:
        """Ask about the examples whose answers no stage has kept."""
        found = self.record.found
        rows = (~found.answered).nonzero()[:, 0]
        self.under = torch.full(self.clean.shape, torch.nan)
        if len(rows):
            self.record.asked += len(rows)
            raw = self.answers.raw(found.x_adv[rows])
            found.answer[rows] = self.answers.read(raw).cpu().to(found.answer.dtype)
            self.under[rows] = raw.cpu().to(self.under.dtype)

    def _provenance(self) -> dict[str, Any]:
        data = self.data.provenance
        return {
            "model": self._described(),
            "surrogates": {source.name: source.described for source in self.sources},
            "data": {**vars(data), "shape": list(data.shape)},
            "corpus": None if self.memory is None else self.memory.replay.told(),
            "preset": self.preset,
            "seed": self.seed,
            "budget": {**vars(self.budget), "queries": self.threat.queries},
            "batch_size": self.batch,
            "batch_invariant": self.record.batch_invariant,
            "versions": {
                "withstand": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
            "device": str(self.x.device),
        }


def _by_entropy(attack: Attack) -> TypeGuard[APGD]:
    return isinstance(attack, APGD) and attack.loss == "ce"
