"""What stands between the clients and a model that is guarded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from ._canary import CanaryConfig
from ._section import Section, wrong
from ._sensors import (
    SENSORS,
    Action,
    AnswersConfig,
    DetectorConfig,
    ExtractionConfig,
    QueriesConfig,
)
from ._tensor import TensorConfig
from ._url import Url
from ._values import Count, Index, Positive, Share, Tolerance

Mode = Literal["observe", "shadow", "enforce"]


class RateConfig(Section):
    """How many requests a client may make."""

    requests: Count = Field(description="so many requests", examples=[100])
    seconds: Positive = Field(default=1.0, description="in so many seconds")
    burst: Count | None = Field(
        default=None, description="how many of them may come at once; all if absent"
    )


class LadderConfig(Section):
    """Which actions are taken, and how fast clients climb to them."""

    actions: list[Action] = Field(
        default=["tag", "coarsen", "delay", "throttle", "block"],
        description="from mild to severe, in the order of tag, coarsen, delay, throttle, reroute, "
        "quarantine, block",
    )
    climb: Count = Field(
        default=50, description="so many flagged requests within the window: a step up"
    )
    window: Positive = Field(default=600.0, description="seconds in which flags fade")


class RerouteConfig(Section):
    """Who is asked instead about suspicious inputs."""

    upstream: Url = Field(
        description="a hardened model or an ensemble", examples=["http://127.0.0.1:8090"]
    )
    share: Share = Field(default=0.05, description="the most of all requests")


class LineConfig(Section):
    """What stands between the clients and a model."""

    mode: Mode = Field(
        default="shadow",
        description="observe: pass on what was sent, look beside; shadow: check in line, take no "
        "action; enforce: take actions",
    )
    upstream: Url | None = Field(
        default=None, description="the model server", examples=["http://127.0.0.1:8080"]
    )
    ca: str | None = Field(
        default=None, description="https: file of the authorities that are trusted instead"
    )
    certificate: str | None = Field(
        default=None, description="https: file of the guard's own certificate and its key"
    )
    inputs: list[TensorConfig] | None = Field(
        default=None,
        description="its inputs; learned from the server's metadata if absent, where it is named",
    )
    batch: Count = Field(
        default=1024, description="the most rows in a request, where the inputs are known"
    )
    parameters: dict[str, StrictBool | StrictInt | StrictStr] = Field(
        default_factory=dict,
        description="parameters that a request may have, by name, where the inputs are known",
    )
    binary: StrictBool | None = Field(
        default=None,
        description="pass tensors on as raw bytes; learned from the server's metadata if absent",
    )
    version: str = Field(default="", description="version of the model, for evidence")
    weights: str = Field(default="", description="digest of its weights, for evidence")
    queries: QueriesConfig | None = Field(
        default=None, description="what watches sequences of queries"
    )
    detectors: list[DetectorConfig] = Field(
        default_factory=list, description="saved detectors in the path of requests"
    )
    extraction: ExtractionConfig | None = Field(
        default=None, description="what tells clients that copy the model by synthetic queries"
    )
    answers: AnswersConfig | None = Field(
        default=None, description="how many answers a client may have before it is flagged"
    )
    ladder: LadderConfig = Field(
        default_factory=LadderConfig, description="which actions are taken on flags"
    )
    throttle: RateConfig | None = Field(
        default=None, description="what is left to clients that are throttled"
    )
    delay: Tolerance = Field(default=1.0, description="seconds of action delay, on average")
    digits: Index = Field(
        default=1, description="digits of scores that action coarsen leaves, 0 for the class alone"
    )
    top: Index = Field(
        default=0, description="how many of the highest scores action coarsen leaves, 0 for all"
    )
    reroute: RerouteConfig | None = Field(
        default=None, description="who is asked instead about suspicious inputs"
    )
    canary: CanaryConfig | None = Field(
        default=None, description="a new version of the model, let in step by step"
    )

    @model_validator(mode="after")
    def _known(self) -> LineConfig:
        names = [one.name for one in self.inputs or []]
        if len(set(names)) < len(names):
            raise wrong("inputs", "has a name twice; name each input once")
        called = [one.called for one in self.detectors]
        if len({*called, *SENSORS}) < len(called) + len(SENSORS):
            raise wrong(
                "detectors",
                f"are called {', '.join(called)}; give each a name of its own, and none of "
                f"{', '.join(SENSORS)}",
            )
        return self
