"""Where checks fired: attack in the ways that they ask for, and judge again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

import numpy as np
import torch

from .._errors import CorpusError
from ..data import Dataset
from ..evidence import Corpus, Entry, Origin, content_digest
from ..models import Model, averaged
from ..threat import Access, Budget, Targeted, Threat, Untargeted
from ._cascade import PRESETS, weakest
from ._evaluate import evaluate
from ._files import check_writable
from ._memory import digest_of
from ._report import Finding, Report
from ._stages import Progress
from ._ways import Examples, Trial, pupil

Kind = Literal["through", "smooth", "draws", "harder"]

KINDS: tuple[Kind, ...] = ("through", "smooth", "draws", "harder")
CUT = ("not differentiable", "zero gradients")
REMEDIES: dict[str, tuple[Kind, ...]] = {
    "not differentiable": ("through",),
    "zero gradients": ("through",),
    "input precision": ("through",),
    "optimisation inside": ("through",),
    "gradient fidelity": ("through", "smooth"),
    "black box beats gradients": ("through",),
    "transfer beats gradients": ("through",),
    "noise beats gradients": ("through",),
    "distance inversion": ("through",),
    "single step beats iterations": ("through",),
    "curve plateau": ("through",),
    "implausible robustness": ("through",),
    "never fooled": ("through",),
    "unstable loss": ("smooth",),
    "unsteady gradients": ("smooth",),
    "boundary distortion": ("smooth",),
    "sweep misses": ("smooth", "harder"),
    "random answers": ("draws",),
    "draws differ": ("draws",),
    "unconverged": ("harder",),
    "steps too short": ("harder",),
    "more steps help": ("harder",),
    "more restarts help": ("harder",),
    "loss dependence": ("harder",),
    "targets help": ("harder",),
}
DONE = {
    "saturated cross-entropy": "The losses were already those that do not depend on the logits' "
    "scale: cross-entropy of tempered logits, and margins over their spread.",
    "probabilities": "The attacks already followed the logarithm of the probabilities.",
    "handed in training": "The model was already in eval mode while it was evaluated.",
}
_HARDER = {"smoke": "standard", "standard": "thorough", "thorough": "thorough"}
_DRAWS = 20
_TRIED = 48


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What was done, in a sentence, and the checks that asked for it."""

    action: str
    checks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixed:
    """An evaluation before and after its remedies; left: findings after it that none acts on.

    after counts as robust only who withstood both: what fooled before is shown first. Where nothing
    was to be run again, it is before.
    """

    before: Report
    after: Report
    remedies: tuple[Remedy, ...]
    left: tuple[Finding, ...]

    def to_json(self) -> str:
        """Both reports in the form of the published schema, with what was done, as JSON text."""
        told = {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "remedies": [vars(remedy) for remedy in self.remedies],
            "left": [finding.check for finding in self.left],
        }
        return json.dumps(told, indent=2, allow_nan=False) + "\n"


def fix(
    model: Model,
    data: Dataset,
    threat: Threat,
    report: Report,
    *,
    preset: str = "standard",
    seed: int = 0,
    budget: Budget | None = None,
    batch_size: int = 64,
    severity: Sequence[Sequence[float]] | None = None,
    corpus: Corpus | str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fixed:
    """Evaluate again with a remedy for what the report's findings say, as far as there is one.

    report: of the same model, data and threat; corpus: takes what both evaluations found; the other
    arguments as in `evaluate`. What hides the gradient is led through, rugged ground smoothed,
    randomness averaged, a weak attack made harder; of several ways to a gradient the one that fools
    most in a short trial is taken. Answers and successes stay the model's own. Raises what
    `evaluate` raises.
    """
    stays = Corpus(corpus) if isinstance(corpus, str | Path) else corpus
    if stays is not None:
        check_writable(stays.path)
    fired = [finding for finding in report.trust.findings if finding.verdict != "green"]
    remedies: list[Remedy] = []
    surrogates: list[Model] = []
    names = [finding.check for finding in fired]
    plan = _plan(names)
    random = "draws" in plan
    found: Examples | None = None
    standing = _standing(model, data, threat, report, seed, batch_size, random=random)
    if standing is not None and ("through" in plan or "smooth" in plan):
        trial = standing.take(np.arange(min(_TRIED, len(standing.x))))
        way, fooled = trial.best(model, through="through" in plan, smooth="smooth" in plan)
        checks = tuple(dict.fromkeys((*plan.get("through", ()), *plan.get("smooth", ()))))
        remedies.append(Remedy(action=way.done, checks=checks))
        if fooled < trial.by_queries(model) and isinstance(threat.goal, Untargeted | Targeted):
            surrogates.append(pupil(model, trial.x, seed))
            remedies.append(
                Remedy(
                    action="Queries still fool more than these gradients: a surrogate was trained "
                    "on the model's answers, and examples made on it are shown to the model.",
                    checks=checks,
                )
            )
        if way.model is not model and "through" in plan and not random:
            found = standing.insist(way.model, PRESETS[preset])
        if found is not None:
            remedies.append(
                Remedy(
                    action="Whoever came near a mistake was attacked from more starts: from each, "
                    "such gradients lead elsewhere, and from where they ended nearest a search by "
                    f"scores went on. {len(found.x)} fell.",
                    checks=checks,
                )
            )
        model = way.model
    if random:
        model = averaged(model, _DRAWS)
        remedies.append(
            Remedy(
                action=f"Answers and gradients are means over {_DRAWS} draws of the model's "
                "randomness; examples are judged on draws that they were not made on (EOT). What "
                "withstands is the mean answer, not each answer of many.",
                checks=plan["draws"],
            )
        )
    if "harder" in plan:
        preset = _HARDER.get(preset, preset)
        remedies.append(
            Remedy(action=f"The attacks are those of the preset {preset}.", checks=plan["harder"])
        )
    after = report
    if remedies:
        with _kept(report, data, found) as kept:
            after = evaluate(
                model,
                data,
                threat,
                preset=preset,
                seed=seed,
                surrogates=surrogates,
                corpus=kept,
                budget=budget,
                batch_size=batch_size,
                severity=severity,
                progress=progress,
            )
            if not random:
                # What leads gradients through it gives the same answers: it is the same model.
                told = {**after.provenance, "model": report.provenance["model"]}
                after = replace(after, provenance={**told, "through": after.provenance["model"]})
            if stays is not None:
                after = replace(after, notes=(*after.notes, *_add(kept, stays, after)))
    done = [Remedy(action=DONE[name], checks=(name,)) for name in names if name in DONE]
    acted = {check for remedy in (*remedies, *done) for check in remedy.checks}
    doubts = (finding for finding in after.trust.findings if finding.verdict != "green")
    left = tuple(finding for finding in doubts if finding.check not in acted)
    return Fixed(before=report, after=after, remedies=(*remedies, *done), left=left)


def _plan(names: Sequence[str]) -> dict[Kind, tuple[str, ...]]:
    """The checks that each kind of remedy answers, by cause: what only follows is judged again."""
    asking: dict[Kind, tuple[str, ...]] = {}
    for kind in KINDS:
        checks = tuple(name for name in names if kind in REMEDIES.get(name, ()))
        if checks:
            asking[kind] = checks
    rest = tuple(name for name in names if name in REMEDIES)
    if "draws" in asking:
        # Answers at random look rugged, unconverged and more besides; a cut gradient is cut.
        cut = tuple(name for name in names if name in CUT)
        others = tuple(name for name in rest if name not in CUT)
        return {"through": cut, "draws": others} if cut else {"draws": others}
    if "through" in asking or "smooth" in asking:
        asking.pop("harder", None)
        asking["through" if "through" in asking else "smooth"] = rest
    return asking


def _standing(
    model: Model,
    data: Dataset,
    threat: Threat,
    report: Report,
    seed: int,
    batch: int,
    *,
    random: bool,
) -> Trial | None:
    """A trial on those who withstood; None where there are no gradients, or nobody is left."""
    status = np.asarray(report.samples.status)
    rows = np.flatnonzero((status == "withstood") | (status == "budget spent"))
    if weakest(model.access, threat.access) != "gradients" or not len(rows):
        return None
    device = getattr(model, "device", torch.device("cpu"))
    x, y = (torch.from_numpy(v[rows]).to(device) for v in (data.x, data.y))
    return Trial(x=x, y=y, threat=threat.take(rows), seed=seed, batch=batch, random=random)


@contextmanager
def _kept(report: Report, data: Dataset, found: Examples | None) -> Iterator[Corpus]:
    """What fooled before, and what was found since, as a corpus for the time being."""
    access = {stage.name: stage.access for stage in report.attacks}
    rows = [row for row, status in enumerate(report.samples.status) if status == "fooled"]
    origin = Origin(data=data.provenance.digest, threat=report.threat)
    entries = [
        Entry(
            original=content_digest(report.x[row]),
            label=report.samples.label[row].tolist(),
            answer=report.samples.adversarial_answer[row].tolist(),
            attack=report.samples.attack[row],
            access=cast(Access, access[report.samples.attack[row]]),
            distance=float(report.samples.distance[row]),
            origin=origin,
        )
        for row in rows
    ]
    with TemporaryDirectory() as folder:
        corpus = Corpus(folder)
        corpus.add([report.x_adv[row] for row in rows], entries)
        if found is not None:
            corpus.add(list(found.x_adv), found.entries(origin))
        yield corpus


def _add(kept: Corpus, stays: Corpus, report: Report) -> tuple[str, ...]:
    """Add what is kept to a corpus that stays, and return notes: a fault there costs no report."""
    digest = digest_of(report.provenance["model"])
    entries = [replace(e, origin=replace(e.origin, model=digest)) for e in kept.entries()]
    try:
        stays.add(kept.read(entries), entries)
    except CorpusError as error:
        return (f"What was found here is not kept: {error}",)
    return ()
