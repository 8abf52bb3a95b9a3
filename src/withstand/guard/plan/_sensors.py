"""The sensors of a model's line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..._errors import ConfigError
from ...config import DetectorConfig, ExtractionConfig, LineConfig, TensorConfig
from ...data import load_histograms, load_table
from .._reading import Reading
from .._sensor import Sensor
from ..access import Secrets
from ..drift import FeatureDrift, Window
from ..extraction import AnswerBudget, ExtractionSensor, Settings
from ..queries import query_sensors
from ._parts import Parts, stamp

if TYPE_CHECKING:
    from ...detect import Detector

_DAY = 86_400.0


def sensors_of(
    name: str, line: LineConfig, *, folder: Path, secrets: Secrets, parts: Parts
) -> Iterator[Sensor]:
    """What looks at the requests for a model, the cheap ones first; raises WithstandError."""
    yield from _drift(name, line.inputs or [], folder, parts)
    told = line.queries
    if told is not None:
        place = folder / told.calibration
        yield from parts.get(
            "queries",
            (name, told, stamp(place)),
            lambda: query_sensors(place, action=told.action, on_failure=told.on_failure),
        )
    for one in line.detectors:
        settings = (name, one, stamp(folder / one.folder))
        yield parts.get("detector", settings, partial(_detector, one, folder))
    copies = line.extraction
    if copies is not None:
        yield parts.get("extraction", (name, copies), lambda: _extraction(copies, secrets))
    most = line.answers
    if most is not None:
        seconds = _DAY * (most.days or math.inf)
        yield parts.get(
            "answers",
            (name, most),
            lambda: AnswerBudget(most.most, seconds=seconds, by=most.by, action=most.action),
        )


def _drift(
    name: str, inputs: list[TensorConfig], folder: Path, parts: Parts
) -> Iterator[FeatureDrift]:
    # The only input of numbers may come as rows, which have no name that is the model's.
    watched = {
        "" if len(inputs) == 1 else one.name: (one.drift, folder / one.table)
        for one in inputs
        if one.drift is not None and one.table is not None
    }
    if not watched:
        return
    files = [(stamp(folder / told.histograms), stamp(table)) for told, table in watched.values()]

    def made() -> FeatureDrift:
        return FeatureDrift(
            {
                place: Window(
                    load_histograms(folder / told.histograms, load_table(table)),
                    rows=told.window,
                    chance=told.chance,
                )
                for place, (told, table) in watched.items()
            }
        )

    yield parts.get("drift", (name, watched, files), made)


def _extraction(told: ExtractionConfig, secrets: Secrets) -> Sensor:
    return ExtractionSensor(
        Settings(least=told.least), seed=int.from_bytes(secrets.get("projections")),
        reading=Reading(name=told.input), by=told.by, action=told.action,
        on_failure=told.on_failure,
    )  # fmt: skip


def _detector(told: DetectorConfig, folder: Path) -> Sensor:
    # Brings torch, which only a guard with a detector needs.
    from ..detectors import DetectorSensor

    spec = told.model
    if spec is None:
        raise ConfigError(
            f"detector {told.called} has no model; add model to it, or the section model"
        )

    def source() -> Detector:
        from ...detect import load
        from ...models import load_model

        return load(folder / told.folder, load_model(spec, folder))

    reading = Reading(
        name=told.input,
        shape=None if told.shape is None else tuple(told.shape),
        scale=told.scale,
        channels_last=told.channels_last,
    )
    return DetectorSensor(
        source, name=told.called, reading=reading, deadline=told.deadline, action=told.action,
        on_failure=told.on_failure,
    )  # fmt: skip
