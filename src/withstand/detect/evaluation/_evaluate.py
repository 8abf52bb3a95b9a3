"""The evaluation of a detector: by attacks that do not know of it, and by those that do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._errors import DataError
from ..._version import __version__
from ...data import Dataset
from ...evaluate import Finding, Progress, Trust, weakest
from ...evaluate import evaluate as evaluate_model
from ...models import adapt
from ...stats import Interval, clopper_pearson, paired_difference, wilson
from ...threat import Targeted, Threat
from .._detector import Detector, inputs_of
from . import _doubts as doubts
from ._attacks import FIRST, PRESETS, SUREST, Target, aware, beyond, tabular, unaware
from ._attempt import Attempt, Runner, Tried, scaled
from ._controls import controls
from ._figures import Clean, benign_figures, effort, input_cost, row, union, worst
from ._given import check, named
from ._report import DetectionReport, Worst
from ._through import blind, way
from ._verdict import verdict

_GUIDES = 500
_SLACK = 1e-4


def evaluate_detector(
    detector: Detector,
    data: Dataset,
    threat: Threat,
    *,
    preset: str = "standard",
    seed: int = 0,
    samples: int = 200,
    radii: Sequence[float] = (0.5, 1.0),
    known: Sequence[Dataset | Tensor] = (),
    requests: int = 100_000,
    batch_size: int = 64,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> DetectionReport:
    """What a calibrated detector stops: attacks that do not know of it, and attacks that do.

    data: benign test inputs that it has not met, with labels; the false-positive rate is measured
    on all of them, and the first `samples` are attacked. radii: shares of the threat's radius; the
    verdict is on 1. known: what it was fitted and calibrated on, to see that none of it is among
    data. requests: benign ones a day, for the expected alarms. checkpoint: a folder from which the
    same call goes on. Raises DataError for a detector without a threshold, ThreatError for a goal
    without classes, a region without a radius or no access.
    """
    running = _Evaluation(
        detector, data, threat, preset, seed, samples, radii, batch_size, checkpoint
    )
    running.progress = progress
    with torch.random.fork_rng(devices=[]):
        report = running.report(known, requests)
    running.runner.done()
    return report


class _Evaluation:
    progress: Callable[[Progress], None] | None = None

    def __init__(
        self,
        detector: Detector,
        data: Dataset,
        threat: Threat,
        preset: str,
        seed: int,
        samples: int,
        radii: Sequence[float],
        batch_size: int,
        checkpoint: str | Path | None,
    ) -> None:
        check(detector, data, threat, preset, samples, radii)
        self.detector, self.data, self.threat, self.seed = detector, data, threat, seed
        self.preset, self.spend = preset, PRESETS[preset]
        # What a table allows is not scaled.
        self.factors = [1.0] if tabular(threat) else sorted({*radii, 1.0})
        self.x, self.y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        self.access = weakest(detector.model.access, threat.access)
        n = min(samples, len(self.x))
        self.labels = self._answers()
        self.suspicion = detector.suspicion(self.x).cpu().numpy()
        if not np.isfinite(self.suspicion).all():
            raise DataError(
                f"{int((~np.isfinite(self.suspicion)).sum())} of {len(self.x)} benign scores are "
                "not finite; look for inputs that the model or the detector cannot take"
            )
        right = self.labels == self.y
        if isinstance(threat.goal, Targeted):
            right &= self.y != threat.goal.target
        self.clean = Clean(
            right=right[:n],
            wrong=(self.labels != self.y)[:n],
            silent=torch.from_numpy(self.suspicion[:n] <= 0),
            suspicion=self.suspicion,
        )
        self.runner = Runner(
            detector=detector,
            x=self.x[:n],
            y=self.y[:n],
            seed=seed,
            batch_size=batch_size,
            folder=None if checkpoint is None else Path(checkpoint),
            of=named(detector, data, n),
            progress=self._telling,
        )

    def report(self, known: Sequence[Dataset | Tensor], requests: int) -> DetectionReport:
        """Attack, and say what came of it."""
        tried = [self.runner.run(attempt) for attempt in self._attempts()]
        inside = [one for one in tried if one.attempt.counts]
        cases = list(self._worst(inside))
        radius = self._radius(1.0)
        at = {case.knows: case for case in cases if case.radius == radius}
        benign = benign_figures(self.detector, self.suspicion)
        trust = Trust(findings=tuple(self._findings(tried, at.get(True), known)))
        found = verdict(
            at.get(True) if any(one.attempt.knows for one in inside) else None,
            at.get(False),
            benign,
            self._gain(inside),
            effort(*self._by_scores(inside)),
            trust,
            by_gradients=self.access == "gradients",
        )
        return DetectionReport(
            detector=self.detector.to_dict(),
            threat=self.threat.describe(),
            verdict=found,
            benign=benign,
            clean_accuracy=clopper_pearson(int((self.labels == self.y).sum()), len(self.y)),
            rows=tuple(row(one, self.clean) for one in tried),
            worst=tuple(cases),
            trust=trust,
            cost=input_cost(self.detector, self.x),
            followed=self.target.way.told,
            requests=requests,
            provenance=self._provenance(),
            benign_scores=self.suspicion,
            notes=self._notes(),
        )

    @cached_property
    def target(self) -> Target:
        """What the attacks are given."""
        model = self.detector.model
        if self.access in ("gradients", "scores"):
            with model.held():
                model, _ = adapt(model, model.scores(self.x[:64]))
        rows = self.clean.right.nonzero()[:, 0]
        few_of = min(self.spend.few, self.clean.n)
        # Guides are not among those attacked, where there are others.
        others = self.x[self.clean.n :][:_GUIDES]
        return Target(
            detector=self.detector,
            model=model,
            way=(way if self.access == "gradients" else blind)(self.detector, self.x[:64]),
            access=self.access,
            rows=rows,
            of=self.clean.n,
            few=rows[rows < few_of],
            few_of=few_of,
            guides=others if len(others) >= self.clean.n // 2 else self.x[:_GUIDES],
            slack=_SLACK * float(np.std(self.suspicion)),
        )

    def _attempts(self) -> Iterator[Attempt]:
        if not bool(self.clean.right.any()):
            return
        for factor in self.factors:
            threat, radius = scaled(self.threat, factor), self._radius(factor)
            yield from unaware(self.target, threat, radius, self.spend)
            yield from aware(self.target, threat, radius, self.spend)
        yield from beyond(self.target, self.threat, self.x, self.spend)

    def _worst(self, inside: Sequence[Tried]) -> Iterator[Worst]:
        for factor in self.factors:
            radius = self._radius(factor)
            for knows in (False, True):
                # Whoever may go far may also go less far, and whoever knows more do as the others.
                able = [
                    one
                    for one in inside
                    if one.attempt.radius <= radius and (knows or not one.attempt.knows)
                ]
                if able:
                    yield worst(able, self.clean, radius, knows=knows)

    def _findings(
        self, tried: Sequence[Tried], case: Worst | None, known: Sequence[Dataset | Tensor]
    ) -> Iterator[Finding]:
        radius = self._radius(1.0)
        yield doubts.alarms(benign_figures(self.detector, self.suspicion))
        surest = [
            one for one in tried if one.attempt.kept == SUREST and one.attempt.radius == radius
        ]
        yield from controls(
            self.detector,
            self.x,
            self.y,
            self.labels == self.y,
            self.suspicion,
            surest[0] if surest else None,
            norm=self.threat.norm,
            radius=None if tabular(self.threat) else radius,
            known=[inputs_of(other) for other in known],
            seed=self.seed,
        )
        adaptive = [one for one in tried if one.attempt.knows]
        yield from doubts.tried(adaptive, self.access == "gradients")
        yield doubts.strength(self.preset)
        if self.access == "gradients" and adaptive:
            yield doubts.slope(self.target.way, len(adaptive))
            asked = [one for one in adaptive if one.attempt.attack.needs == "scores"]
            followed = [one for one in adaptive if one not in asked]
            yield doubts.misled(*(union(some, self.clean)[1] for some in (followed, asked)))
        own: dict[float, list[Tried]] = {}
        for one in adaptive:
            own.setdefault(one.attempt.radius, []).append(one)
        yield from doubts.falling({r: union(some, self.clean)[1] for r, some in own.items()})
        # Where nearly nobody is right or rejected there is nothing that could be implausible.
        if case is not None and adaptive and case.robust.low > wilson(0, self.clean.n).high:
            yield doubts.implausible(case, self._half())

    def _half(self) -> Interval:
        """Robust accuracy at half of the radius, without the detector: at most."""
        threat = scaled(self.threat, 0.5)
        n = self.clean.n
        report = evaluate_model(
            self.detector.model, self.data.head(n), threat, preset="smoke", seed=self.seed
        )
        return report.robust_accuracy

    def _gain(self, inside: Sequence[Tried]) -> Interval:
        """By how much the detector lowers the share of inputs that are fooled unseen."""
        able = [one for one in inside if one.attempt.radius <= self._radius(1.0)]
        fooled, unseen = union(able, self.clean)
        return paired_difference(int((fooled & ~unseen).sum()), 0, self.clean.n, 0.95)

    def _by_scores(self, inside: Sequence[Tried]) -> tuple[Tried | None, list[Tried]]:
        """The attack from scores on the bare model, and those past the detector."""
        there = [
            one
            for one in inside
            if one.attempt.radius == self._radius(1.0) and one.attempt.attack.needs == "scores"
        ]
        bare = [one for one in there if not one.attempt.knows and one.attempt.kept == FIRST]
        return (bare[0] if bare else None, [one for one in there if one.attempt.knows])

    def _radius(self, factor: float) -> float:
        return float(np.max(scaled(self.threat, factor).describe()["eps"]))

    def _notes(self) -> tuple[str, ...]:
        if not self.detector.method.attack_aware:
            return ()
        return ("It was fitted to examples of attacks, and says less about other ones than these.",)

    def _answers(self) -> Tensor:
        model = self.detector.model
        with model.held():
            return torch.cat([model.labels(part).cpu() for part in torch.split(self.x, 256)])

    def _telling(self, name: str) -> Callable[[int, int, int], None] | None:
        told = self.progress
        if told is None:
            return None
        return lambda done, total, fooled: told(
            Progress(stage=name, done=done, total=total, fooled=fooled)
        )

    def _provenance(self) -> dict[str, Any]:
        data = self.data.provenance
        return {
            "data": {**vars(data), "shape": list(data.shape)},
            "attacked": self.clean.n,
            "preset": self.preset,
            "seed": self.seed,
            "radii": [self._radius(factor) for factor in self.factors],
            "versions": {"withstand": __version__, "torch": torch.__version__},
            "threads": torch.get_num_threads(),
        }
