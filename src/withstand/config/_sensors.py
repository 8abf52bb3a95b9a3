"""What looks at requests to a model that is guarded."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field, StrictBool

from ._model import ModelConfig
from ._section import Section
from ._tensor import Shape
from ._values import Count, Positive, Share

Action = Literal["tag", "coarsen", "delay", "throttle", "reroute", "quarantine", "block"]
Late = Literal["tag", "coarsen", "quarantine", "block"]
"""What can still be done once the model has answered."""
Failure = Literal["open", "closed"]
SENSORS = ("queries", "search", "spectrum", "extraction", "answers")
"""Names that detectors cannot have."""


class SensorConfig(Section):
    """What looks at requests, and what if it fails."""

    on_failure: Failure = Field(
        default="open", description="requests that it failed on: open lets them through"
    )


class DetectorConfig(SensorConfig):
    """A saved detector in the path of requests."""

    action: Action = Field(default="tag", description="the mildest action on a flag")
    folder: str = Field(
        description="folder that `withstand detect fit` wrote", examples=["withstand-detector"]
    )
    name: str | None = Field(
        default=None, description="what it is called in figures and evidence; the folder's name"
    )
    model: ModelConfig | None = Field(
        default=None,
        description="the model that it was fitted to, a copy of its own; the file's if absent",
    )
    input: str = Field(default="", description="which input it looks at; the first if absent")
    shape: Shape | None = Field(
        default=None, description="shape of a row as the model takes it; as it comes if absent"
    )
    scale: Positive = Field(default=1.0, description="values are divided by this")
    channels_last: StrictBool = Field(default=False, description="HxWxC becomes CxHxW")
    deadline: Positive = Field(default=0.05, description="seconds that a request waits for it")

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or PurePath(self.folder).name


class QueriesConfig(SensorConfig):
    """What watches sequences of queries; a search that its answers tell is at least coarsened."""

    action: Action = Field(default="tag", description="the mildest action on a flag")
    calibration: str = Field(
        description="what `withstand guard calibrate-queries` wrote", examples=["queries"]
    )


class ExtractionConfig(SensorConfig):
    """What tells clients that copy the model by synthetic queries, by the answers that they had."""

    action: Late = Field(default="coarsen", description="the mildest action on a flag")
    by: Literal["key", "tenant"] = Field(
        default="key", description="whose queries are looked at together"
    )
    least: Share = Field(
        default=0.9, description="Shapiro and Wilk's W of the distances, below which is a flag"
    )
    input: str = Field(default="", description="which input it looks at; the first if absent")


class AnswersConfig(Section):
    """How many answers a client may have before it is flagged, each row one."""

    most: Count = Field(description="so many answers", examples=[100_000])
    days: Positive | None = Field(
        default=None, description="in so many days; while the guard runs if absent"
    )
    by: Literal["key", "tenant"] = Field(
        default="key", description="whose answers are counted together"
    )
    action: Late = Field(default="coarsen", description="the mildest action on a flag")
