"""A defended system as one, and without each of its layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import ModelError, ThreatError, WithstandError
from ..data import Dataset
from ..models import Defended, Detecting, Model
from ..stats import Interval, paired_difference, wilson
from ..threat import Budget, Evading, Targeted, Threat
from ._cascade import PRESETS
from ._evaluate import evaluate
from ._layer import Layer
from ._masking import Trial, craftable, fitting, plain
from ._report import Report
from ._stages import Progress

SCHEMA = "urn:withstand:layers:1"
# So much silence that no score of a model comes near it.
_SILENCE = 1e6
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """The result of `evaluate_layers`: reports of the whole and without each layer, by its name.

    served: share of clean inputs that the whole answers rightly and does not flag. In reports with
    a detector, clean and robust accuracy count what is flagged among the right.
    """

    served: Interval
    whole: Report
    without: dict[str, Report]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            "served": self.served.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "notes": list(self.notes),
            "whole": self.whole.to_dict(),
            "without": {name: report.to_dict() for name, report in self.without.items()},
        }

    def to_json(self) -> str:
        """The result as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def evaluate_layers(
    system: Defended,
    data: Dataset,
    threat: Threat,
    *,
    preset: str = "standard",
    seed: int = 0,
    budget: Budget | None = None,
    batch_size: int = 64,
    progress: Callable[[Progress], None] | None = None,
) -> Layers:
    """Evaluate a defended system as one, and without each of its layers.

    Where there is a detector, the goal is to evade it too. The system without a layer is also a
    surrogate of an attacker who knows gradients: examples made on it are shown to the whole, so
    that a layer which only hides the gradient does not pass for robustness. budget: of each
    evaluation. Raises what `evaluate` raises, ModelError for a system without layers, and
    ThreatError for a goal that evades a detector where there is none.
    """
    if not system.layers:
        raise ModelError(
            "the system has 0 layers to remove; give transforms, a detector with its threshold, "
            "several members, or plain, or call evaluate(...) on its model"
        )
    if isinstance(threat.goal, Evading) and system.detector is None:
        raise ThreatError(
            f"the goal is {threat.goal.describe()} and the system has no detector; give one with "
            "its threshold, or the goal without it"
        )

    def run(part: Defended, title: str, surrogates: dict[str, Model]) -> Report:
        return evaluate(
            part.model,
            data,
            fitting(threat, part),
            preset=preset,
            seed=seed,
            surrogates=surrogates,
            budget=budget,
            batch_size=batch_size,
            progress=_telling(progress, title),
        )

    parts = {name: system.without(name) for name in system.layers}
    without = {}
    for name, part in parts.items():
        try:
            without[name] = run(part, f"without {name}", {})
        except WithstandError as error:
            raise ModelError(
                f"without {name}: {error}; what the model cannot do without belongs into the "
                "member, with a Pipeline"
            ) from None
    whole = run(system, "all layers", _surrogates(system, parts, threat))
    trial = Trial(data=data, threat=threat, spend=PRESETS[preset], seed=seed, batch=batch_size)
    served, flagged = _served(whole, fitting(threat, system))
    layers = []
    for name, part in parts.items():
        stopped, masks = trial.of(system.only(name), name)
        otherwise, _ = _served(without[name], fitting(threat, part))
        layer = Layer(
            name=name,
            kind=system.layers[name],
            served=_share(otherwise),
            clean=_gain(served, otherwise),
            robust=_gain(_robust(whole), _robust(without[name])),
            stopped=stopped,
            masks=masks,
            flagged=flagged if system.layers[name] == "detector" else None,
        )
        layers.append(layer)
    return Layers(
        served=_share(served),
        whole=whole,
        without=without,
        layers=tuple(layers),
        notes=_notes(whole, tuple(without.values())),
    )


def _surrogates(system: Defended, parts: dict[str, Defended], threat: Threat) -> dict[str, Model]:
    """What an attacker who knows the system makes examples on, with as many scores as the whole."""
    found = {f"without {name}": part for name, part in parts.items()}
    if len(system.transforms) + (system.detector is not None) > 1:
        # Of two layers that hide the gradient, removing one leaves the other.
        found["the members alone"] = system.bare
    return {
        name: Detecting(part.model, _unsuspicious, threshold=_SILENCE)
        if system.detector is not None and part.detector is None
        else part.model
        for name, part in found.items()
        if craftable(part.model, threat)
    }


def _unsuspicious(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


def _robust(report: Report) -> Mask:
    """Who withstood (N,)."""
    return np.isin(report.samples.status, ("withstood", "budget spent"))


def _served(report: Report, threat: Threat) -> tuple[Mask, Interval | None]:
    """Which clean inputs (N,) are answered rightly and let through, and the share flagged."""
    answer, y = (torch.from_numpy(v) for v in (report.samples.clean_answer, report.samples.label))
    silent = None
    if isinstance(threat.goal, Evading):
        answer, silent = answer[:, 0], answer[:, 1] > 0
    goal = plain(threat.goal)
    right = answer == y if isinstance(goal, Targeted) else ~goal.hit(answer, y)
    if silent is None:
        return right.numpy(), None
    return (right & silent).numpy(), _share((~silent).numpy())


def _share(mask: Mask) -> Interval:
    return wilson(int(mask.sum()), len(mask))


def _gain(having: Mask, lacking: Mask) -> Interval:
    first, second = int((having & ~lacking).sum()), int((lacking & ~having).sum())
    return paired_difference(first, second, len(having), 0.95)


def _notes(whole: Report, without: Sequence[Report]) -> tuple[str, ...]:
    notes = []
    if whole.trust.verdict == "red":
        notes.append(
            "The trust in the whole's robust accuracy is red: what a layer seems to add may be the "
            "attack's failure."
        )
    random = any(
        finding.check in ("random answers", "draws differ") and finding.verdict != "green"
        for report in (whole, *without)
        for finding in report.trust.findings
    )
    if random:
        notes.append(
            "Answers differ between equal calls, so that the figures of the layers do too. Give "
            "the system draws, or wrap a random member in Randomized."
        )
    return tuple(notes)


def _telling(
    progress: Callable[[Progress], None] | None, title: str
) -> Callable[[Progress], None] | None:
    if progress is None:
        return None
    return lambda now: progress(replace(now, stage=f"{title}: {now.stage}"))
