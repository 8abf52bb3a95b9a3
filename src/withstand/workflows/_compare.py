"""Defences side by side on one model, one threat and the same samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from .._errors import CertificateError, ConfigError, DataError, WithstandError, one_line
from .._version import __version__
from ..attacks import run
from ..certify import (
    Bounds,
    Certificates,
    SmoothedClassifier,
    Smoothing,
    Trees,
    certify,
    load_certificates,
)
from ..data import Dataset
from ..evaluate import Progress, Report, evaluate, load_report, sandwich
from ..models import Model, describe, inference_cost
from ..stats import Interval, paired_difference, wilson
from ..threat import Threat
from ._transfer import TransferMatrix, transfer_matrix
from ._unseen import Unseen, unseen_by

SCHEMA = "urn:withstand:comparison:1"
Mask = NDArray[np.bool_]
Tell = Callable[[Progress], None]
Saved = TypeVar("Saved", Report, Certificates)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model to compare; training_cost: its training over standard training, None if unknown."""

    model: Model
    training_cost: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """What an entry reaches and costs, each beside the first entry.

    clean_gain, robust_gain: by how much the accuracies are higher than the first entry's on the
    same samples, None for the first. inference_cost: CPU time of an answer over the first's.
    unseen: robust accuracies (upper bounds) by column; None where an attack does not apply.
    not_certified: why it has no certified accuracy though that was asked for.
    """

    name: str
    report: Report
    training_cost: float | None = None
    inference_cost: float | None = None
    clean_gain: Interval | None = None
    robust_gain: Interval | None = None
    unseen: Mapping[str, Interval | None] = field(default_factory=dict)
    not_certified: str | None = None

    @property
    def adaptive(self) -> bool | None:
        """Whether attacks knew of its defences; None where it declares none."""
        told = self.report.defences
        return None if told is None else not told.missing

    @property
    def masking(self) -> bool:
        """Whether a plain attack says much more than one that knows of the defences."""
        return self.report.defences is not None and bool(self.report.defences.masking)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        told = self.report.defences
        figures = {
            "clean_accuracy": self.report.clean_accuracy,
            "robust_accuracy": self.report.robust_accuracy,
            "certified_accuracy": self.report.certified_accuracy,
            "clean_gain": self.clean_gain,
            "robust_gain": self.robust_gain,
            "plain_accuracy": None if told is None else told.plain,
        }
        return {
            "name": self.name,
            **{key: _plain(figure) for key, figure in figures.items()},
            "not_certified": self.not_certified,
            "unseen": {key: _plain(figure) for key, figure in self.unseen.items()},
            "training_cost": self.training_cost,
            "inference_cost": self.inference_cost,
            "adaptively_evaluated": self.adaptive,
            "masking": self.masking,
            "trust": self.report.trust.verdict,
            "cost": vars(self.report.cost),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The rows, the first of which the others are compared with; unseen: columns in words.

    transfer: who fools whom, None where that was not asked for.
    """

    rows: tuple[Row, ...]
    unseen: Mapping[str, str] = field(default_factory=dict)
    transfer: TransferMatrix | None = None

    @classmethod
    def of(cls, reports: Mapping[str, Report]) -> Comparison:
        """Reports of one threat and the same samples, by name, without costs; DataError if not."""
        rows = [Row(name=name, report=report) for name, report in reports.items()]
        return cls(rows=tuple(_gained(row, rows[0]) for row in rows))

    @property
    def first(self) -> Report:
        """The first entry's report, whose threat and samples are those of all."""
        return self.rows[0].report

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        threat, provenance = self.first.threat, self.first.provenance
        return {
            "schema": SCHEMA,
            "threat": {key: value for key, value in threat.items() if key != "techniques"},
            "preset": provenance["preset"],
            "seed": provenance["seed"],
            "data": provenance["data"]["digest"],
            "unseen": dict(self.unseen),
            "entries": [row.to_dict() for row in self.rows],
            "transfer": None if self.transfer is None else self.transfer.to_dict(),
        }

    def to_json(self) -> str:
        """The comparison as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def compare(
    entries: Mapping[str, Entry],
    data: Dataset,
    threat: Threat,
    *,
    preset: str = "standard",
    seed: int = 0,
    batch_size: int = 64,
    unseen: Mapping[str, Unseen] | None = None,
    method: Smoothing | Bounds | Trees | None = None,
    transfer: bool = False,
    checkpoint: str | Path | None = None,
    progress: Tell | None = None,
) -> Comparison:
    """Evaluate each entry, adaptively where it declares defences, and under unseen attacks.

    entries: by name, the first is the one that the others are compared with. unseen: columns of
    robust accuracy under other threats, with preset smoke at most standard; those of `unseen_by`
    if not given. method: how each entry is certified too, as far as it can be. transfer: also make
    examples on each entry with gradients and show them to all. checkpoint: a folder from which the
    same call goes on, removed at the end. Raises what `evaluate` raises, ConfigError for no entry,
    and CertificateError where an attack fooled what was proven.
    """
    if not entries:
        raise ConfigError("there are 0 entries to compare; give at least one model by name")
    (first, *_) = entries.values()
    columns = unseen_by(threat, data, first.model.domain) if unseen is None else unseen
    kept = _Kept(checkpoint, (data.provenance.digest, preset, seed, batch_size))
    weaker = "standard" if preset == "thorough" else "smoke"
    rows: list[Row] = []
    for name, entry in entries.items():

        def evaluated(
            column: str, against: Threat, spend: str, entry: Entry = entry, name: str = name
        ) -> Report:
            return kept.same(
                (name, column, describe(entry.model), against.describe()),
                load_report,
                lambda file: evaluate(
                    entry.model,
                    data,
                    against,
                    preset=spend,
                    seed=seed,
                    batch_size=batch_size,
                    checkpoint=file,
                    progress=_telling(progress, f"{name}, {column}" if column else name),
                ),
            )

        report, reason = evaluated("", threat, preset), None
        if method is not None:
            report, reason = _certified(entry.model, data, threat, method, name, report, kept,
                                        progress)  # fmt: skip
        found: dict[str, Interval | None] = {}
        for column, other in columns.items():
            if other.attack is None:
                found[column] = evaluated(column, other.threat, weaker).robust_accuracy
            else:
                found[column] = _withstood(entry.model, data, other, report, seed, batch_size)
        row = Row(
            name=name,
            report=report,
            training_cost=entry.training_cost,
            inference_cost=_cost(entry.model, first.model, data),
            unseen=found,
            not_certified=reason,
        )
        rows.append(_gained(row, rows[0] if rows else row))
    shown = None
    if transfer:
        models = {name: entry.model for name, entry in entries.items()}
        shown = transfer_matrix(models, data, threat, seed=seed, batch_size=batch_size)
    kept.remove()
    told = {key: each.told for key, each in columns.items()}
    return Comparison(rows=tuple(rows), unseen=told, transfer=shown)


class _Kept:
    """What was finished before an interruption, by what it is of."""

    def __init__(self, folder: str | Path | None, settings: tuple[object, ...]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.settings = settings

    def same(
        self,
        told: tuple[object, ...],
        load: Callable[[Path], Saved],
        make: Callable[[Path | None], Saved],
    ) -> Saved:
        if self.folder is None:
            return make(None)
        name = blake2b(repr((__version__, self.settings, told)).encode(), digest_size=8).hexdigest()
        place = self.folder / name
        with suppress(DataError):
            return load(place)
        self.folder.mkdir(parents=True, exist_ok=True)
        made = make(self.folder / f"{name}-checkpoint")
        made.save(place)
        return made

    def remove(self) -> None:
        if self.folder is not None:
            rmtree(self.folder, ignore_errors=True)


def _certified(
    model: Model,
    data: Dataset,
    threat: Threat,
    method: Smoothing | Bounds | Trees,
    name: str,
    report: Report,
    kept: _Kept,
    progress: Tell | None,
) -> tuple[Report, str | None]:
    """The report with what is proven, or as it is and why nothing can be."""
    if isinstance(method, Smoothing) and not isinstance(model, SmoothedClassifier):
        return report, "smoothing is of a SmoothedClassifier, and the entry is none"
    tell = _telling(progress, name)

    def counted(done: int, total: int) -> None:
        if tell is not None:
            tell(Progress(stage="certifying", done=done, total=total, fooled=0))

    try:
        told = kept.same(
            (name, method, describe(model), threat.describe()),
            load_certificates,
            lambda file: certify(model, data, threat, method, checkpoint=file, progress=counted),
        )
        return sandwich(report, told, model), None
    except CertificateError:
        raise
    except WithstandError as error:
        return report, one_line(error, 200)


def _withstood(
    model: Model, data: Dataset, other: Unseen, report: Report, seed: int, batch: int
) -> Interval:
    """Robust accuracy under one attack, of the samples that are right by themselves."""
    assert other.attack is not None
    device = getattr(model, "device", torch.device("cpu"))
    rows = np.flatnonzero(np.asarray(report.samples.status) != "already wrong")
    if not len(rows):
        return wilson(0, len(data.x))
    x, y = (torch.from_numpy(v[rows]).to(device) for v in (data.x, data.y))
    # What an attack asks for is what its attacker sees at least.
    threat = replace(other.threat.take(rows), queries=None)
    result = run(other.attack, model, x, y, threat, seed=seed, batch_size=batch)
    return wilson(int((~result.success).sum()), len(data.x))


def _cost(model: Model, first: Model, data: Dataset) -> float:
    if model is first:
        return 1.0
    device = getattr(model, "device", torch.device("cpu"))
    return inference_cost(model, first, torch.from_numpy(data.x[:64]).to(device))


def _gained(row: Row, first: Row) -> Row:
    if row.name == first.name:
        return row
    then, now = first.report.provenance["data"]["digest"], row.report.provenance["data"]["digest"]
    if then != now or len(row.report.x) != len(first.report.x):
        raise DataError(f"{row.name} was evaluated on other data than {first.name}; use the same")
    right, robust = (
        tuple(np.isin(each.report.samples.status, words) for each in (row, first))
        for words in (("withstood", "budget spent", "fooled"), ("withstood", "budget spent"))
    )
    return replace(row, clean_gain=_difference(*right), robust_gain=_difference(*robust))


def _difference(having: Mask, lacking: Mask) -> Interval:
    more, fewer = int((having & ~lacking).sum()), int((lacking & ~having).sum())
    return paired_difference(more, fewer, len(having), 0.95)


def _plain(figure: Interval | None) -> dict[str, Any] | None:
    return None if figure is None else figure.to_dict()


def _telling(progress: Tell | None, title: str) -> Tell | None:
    if progress is None:
        return None
    return lambda now: progress(replace(now, stage=f"{title}: {now.stage}"))


def unique(names: Sequence[str]) -> list[str]:
    """The names, those that occur again with a number behind."""
    found: list[str] = []
    for name in names:
        number = 1 + sum(other == name or other.startswith(f"{name} (") for other in found)
        found.append(name if number == 1 else f"{name} ({number})")
    return found
