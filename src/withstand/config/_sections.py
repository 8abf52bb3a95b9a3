"""The sections of withstand.yaml."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ._certify import CertifyConfig
from ._data import DataConfig
from ._defences import CompareConfig, DefenceConfig
from ._detect import DetectConfig
from ._guard import GuardConfig
from ._harden import HardenConfig, Norm
from ._model import Access, ModelConfig
from ._monitor import MonitorConfig
from ._redteam import RedteamConfig
from ._respond import RespondConfig
from ._section import Section, wrong
from ._ui import UiConfig
from ._values import (
    Columns,
    Count,
    Index,
    Matrix,
    Positive,
    Seconds,
    Share,
    Tolerance,
)


class PatchConfig(Section):
    """A rectangle of a picture in which every value is free, in pixels."""

    height: Count = Field(description="rows", examples=[5])
    width: Count = Field(description="columns", examples=[5])
    top: Index = Field(description="its first row, from 0", examples=[2])
    left: Index = Field(description="its first column, from 0", examples=[2])


class RegionConfig(Section):
    """What the attacker may change; norm and eps can be left out where data.table tells it, and
    with patches or a frame, whose values are then free."""

    norm: Norm | None = Field(
        default=None, description="how a change is measured", examples=["linf"]
    )
    eps: Positive | None = Field(
        default=None,
        description="radius in units of the raw input, or the number of features for l0",
        examples=["8/255"],
    )
    most_changed: Count | None = Field(
        default=None, description="with data.table: how many features can change in a row"
    )
    most_cost: Tolerance | None = Field(
        default=None, description="with data.table: what can be spent on a row"
    )
    frozen: Columns | None = Field(
        default=None, description="indices of the features that the attacker cannot change"
    )
    patches: list[PatchConfig] | None = Field(
        default=None,
        description="rectangles of a picture, the only places that change",
        examples=["[{height: 5, width: 5, top: 2, left: 2}]"],
    )
    frame: Count | None = Field(
        default=None, description="the width in pixels of a frame, the only place that changes"
    )
    tones: list[float] | None = Field(
        default=None, description="with patches: the only values to print with", examples=[[0, 1]]
    )

    @model_validator(mode="after")
    def _place(self) -> RegionConfig:
        if self.patches is not None and self.frame is not None:
            raise wrong("frame", "and patches are both given; give one of them")
        if self.patches is not None and not self.patches:
            raise wrong("patches", "are none; give at least one")
        if self.tones is not None and not (self.patches and self.tones):
            raise wrong("tones", "are for patches, and at least one value; take them out")
        return self

    @property
    def placed(self) -> bool:
        """Whether only some places of a picture change."""
        return self.patches is not None or self.frame is not None

    @model_validator(mode="after")
    def _count(self) -> RegionConfig:
        for key, other, example in (("norm", "eps", "linf"), ("eps", "norm", "8/255")):
            if getattr(self, key) is None and getattr(self, other) is not None:
                raise wrong(key, f"is missing; add it, e.g. {key}: {example}")
        if self.norm == "l0" and self.eps is not None and self.eps != int(self.eps):
            raise wrong("eps", f"is {self.eps:g}; norm l0 counts features, so give a whole number")
        return self


class ThreatConfig(Section):
    """Who attacks, what they want and what they may spend."""

    goal: Literal["untargeted", "targeted", "multilabel", "regression"] = Field(
        default="untargeted", description="what counts as success"
    )
    target: Index | None = Field(default=None, description="the class that goal targeted wants")
    tolerance: Tolerance | None = Field(
        default=None, description="the error that goal regression must exceed"
    )
    access: Access = Field(default="gradients", description="what the attacker sees of the model")
    region: RegionConfig = Field(
        default_factory=RegionConfig,
        description="what the attacker may change; with data.table it can be left out",
        examples=["{norm: linf, eps: 8/255}"],
    )
    queries: Count | None = Field(default=None, description="queries for each sample")

    @model_validator(mode="after")
    def _goals(self) -> ThreatConfig:
        for key, goal, example in (("target", "targeted", 0), ("tolerance", "regression", 0.5)):
            given = getattr(self, key) is not None
            if self.goal == goal and not given:
                raise wrong(key, f"is missing; goal {goal} needs it, e.g. {key}: {example}")
            if self.goal != goal and given:
                raise wrong(key, f"is only for goal {goal}, not {self.goal}; take it out")
        return self


class EvaluateConfig(Section):
    """How much an evaluation spends and where its report goes."""

    preset: Literal["smoke", "standard", "thorough"] = Field(
        default="standard", description="how much is spent"
    )
    seed: Index = Field(default=0, description="seed of all randomness")
    seconds: Seconds | None = Field(default=None, description="time limit in all, in seconds")
    batch_size: Count | None = Field(default=None, description="samples per forward; 64 if absent")
    checkpoint: str | None = Field(
        default=None, description="file to resume from after an interruption"
    )
    output: str = Field(default="withstand-report", description="folder of the report")
    corpus: str | None = Field(
        default=None,
        description="folder of kept adversarial examples: shown first, and those found are added",
    )
    severity: Matrix | None = Field(
        default=None, description="cost of each mistake, true class x predicted class"
    )


class Limit(Section):
    """Bounds on a share between 0 and 1."""

    min: Share | None = Field(default=None, description="the least that passes")
    max: Share | None = Field(default=None, description="the most that passes")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.min is None and self.max is None:
            raise wrong("min", "and max are both missing; give one, e.g. {min: 0.85}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise wrong("min", f"is {self.min:g}, above max {self.max:g}; swap them")
        return self


class UnitLimit(Limit):
    """Bounds on what has a unit and is no share."""

    min: Tolerance | None = Field(default=None, description="the least that passes")
    max: Tolerance | None = Field(default=None, description="the most that passes")


class TrustLimit(Section):
    """The least trust verdict that passes."""

    min: Literal["green", "amber", "red"] = Field(
        description="the least verdict that passes", examples=["amber"]
    )


_AT_MOST = (
    "fooling_rate",
    "clean_accuracy_drop",
    "robust_accuracy_drop",
    "false_positive_rate",
    "severity",
    "money_rate",
)


class GateConfig(Section):
    """What a release must meet; a key that is absent is not asked for."""

    robust_accuracy: Limit | None = Field(
        default=None, description="share still classified correctly under attack"
    )
    clean_accuracy: Limit | None = Field(
        default=None, description="share classified correctly without attack"
    )
    fooling_rate: Limit | None = Field(
        default=None, description="share of correctly classified inputs that an attack fools"
    )
    certified_accuracy: Limit | None = Field(default=None, description="share proven robust")
    worst_class_accuracy: Limit | None = Field(
        default=None, description="robust accuracy of the worst class, in a report"
    )
    worst_group_accuracy: Limit | None = Field(
        default=None, description="robust accuracy of the worst of data.group, in a report"
    )
    median_distance: UnitLimit | None = Field(
        default=None,
        description="median distance of the nearest mistake in the threat's norm, in a report",
    )
    severity: UnitLimit | None = Field(
        default=None,
        description="mean cost of an answer under attack, by evaluate.severity, in a report",
    )
    money_rate: Limit | None = Field(
        default=None,
        description="share of the money of a table's caught rows that gets through, in a report",
    )
    clean_accuracy_drop: Limit | None = Field(
        default=None, description="by how much clean accuracy may be below the baseline's"
    )
    robust_accuracy_drop: Limit | None = Field(
        default=None, description="by how much robust accuracy may be below the baseline's"
    )
    detection_rate: Limit | None = Field(
        default=None,
        description="share of successful attacks by somebody who knows of the detector that it "
        "flags, as `withstand detect evaluate` found it",
    )
    false_positive_rate: Limit | None = Field(
        default=None,
        description="share of benign inputs that the detector flags, from the same report",
    )
    adversarial_test_coverage: Limit | None = Field(
        default=None, description="share of the project's tests that are robustness tests"
    )
    trust: TrustLimit | None = Field(
        default=None,
        description="can the number be believed; amber if absent, where a limit rests on attacks",
    )
    baseline: str | None = Field(
        default=None,
        description="folder of the last release's report: what drops count from, and whose "
        "examples are tried first",
    )
    coverage: str = Field(
        default="robustness-coverage.json", description="file that pytest wrote about the tests"
    )
    detection: str | None = Field(
        default=None,
        description="folder of the report of `withstand detect evaluate`; that of evaluate if "
        "absent",
    )
    output: str = Field(default="withstand-gate", description="folder of the gate's files")

    @model_validator(mode="after")
    def _bounded_where_it_hurts(self) -> GateConfig:
        for name, limit in self:
            side = "max" if name in _AT_MOST else "min"
            if isinstance(limit, Limit) and getattr(limit, side) is None:
                other = "min" if side == "max" else "max"
                raise wrong(
                    name,
                    f"has {other} and no {side}, so that the worst model would pass; give {side}",
                )
        return self


class Config(Section):
    """One withstand.yaml."""

    model: ModelConfig = Field(description="what is attacked")
    served: ModelConfig | None = Field(
        default=None,
        description="where the model is served: `withstand parity` compares its answers with the "
        "model's, and names the step that differs",
    )
    data: DataConfig = Field(description="what it is attacked on")
    threat: ThreatConfig = Field(description="who attacks and how far they may go")
    surrogates: list[ModelConfig] = Field(
        default_factory=list,
        description="models with gradients that the attacker has: examples made on them are shown "
        "to the model, and with threat.access none that is all there is",
    )
    defences: list[DefenceConfig] = Field(
        default_factory=list,
        description="in front of the model, the first one meets the input first; `withstand "
        "evaluate` attacks through them",
    )
    compare: list[CompareConfig] = Field(
        default_factory=list,
        description="what `withstand compare` puts beside the model: other models, or defences",
    )
    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="how much an evaluation spends"
    )
    harden: HardenConfig = Field(
        default_factory=HardenConfig, description="how the model is trained to withstand attack"
    )
    certify: CertifyConfig | None = Field(
        default=None, description="how it is proven that the model withstands the threat"
    )
    detect: DetectConfig | None = Field(
        default=None, description="which inputs are told that look like an attack"
    )
    guard: GuardConfig | None = Field(
        default=None, description="how the guard stands in front of the served model"
    )
    monitor: MonitorConfig = Field(
        default_factory=MonitorConfig,
        description="what is measured of the model in service, and who is told",
    )
    respond: RespondConfig = Field(
        default_factory=RespondConfig, description="what is done about alerts"
    )
    redteam: RedteamConfig = Field(
        default_factory=RedteamConfig,
        description="how the endpoint is attacked with permission",
    )
    ui: UiConfig = Field(default_factory=UiConfig, description="where the pages are")
    gate: GateConfig = Field(default_factory=GateConfig, description="what a release must meet")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        region, classes, target = self.threat.region, self.data.classes, self.threat.target
        span = _span(self.model.domain)
        self._tabular()
        # The other norms add up over features, so their radius may well exceed one feature's span.
        if self.data.table is None and region.norm == "linf" and (region.eps or 0) > span:
            assert region.eps is not None
            steps = region.eps if span == 1 and region.eps <= 255 else 8.0
            raise wrong(
                "threat.region.eps",
                f"is {region.eps:g}, more than model.domain spans ({span:g}); write eps: "
                f"{steps * span:g}/255 for 8-bit steps, or correct model.domain",
            )
        if classes is not None and target is not None and target >= len(classes):
            raise wrong(
                "threat.target",
                f"is {target}, but data.classes has {len(classes)}; give 0 to {len(classes) - 1}",
            )
        severity = self.evaluate.severity
        if severity is not None and classes is not None and len(severity) != len(classes):
            raise wrong(
                "evaluate.severity",
                f"has {len(severity)} rows, but data.classes has {len(classes)}; give one for each",
            )
        return self

    def _tabular(self) -> None:
        """What goes with a table and what does not."""
        region = self.threat.region
        if self.data.table is None:
            for key in ("most_changed", "most_cost"):
                if getattr(region, key) is not None:
                    raise wrong(
                        f"threat.region.{key}", "needs data.table; add it, or take this out"
                    )
            if region.norm is None and not region.placed:
                raise wrong(
                    "threat.region",
                    "is missing; add it, e.g. region: {norm: linf, eps: 8/255}, or data.table",
                )
        elif "domain" in self.model.model_fields_set:
            raise wrong("model.domain", "is not for data with a table, whose file tells it")
        elif region.placed:
            key = "frame" if region.patches is None else "patches"
            raise wrong(
                f"threat.region.{key}", "is for pictures, and data has a table; take it out"
            )


def _span(domain: list[float | list[float]]) -> float:
    lower, upper = (bound if isinstance(bound, list) else [bound] for bound in domain)
    n = max(len(lower), len(upper))
    pairs = zip(lower * (n // len(lower)), upper * (n // len(upper)), strict=True)
    return max(high - low for low, high in pairs)


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of withstand.yaml."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
