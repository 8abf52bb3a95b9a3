"""The section that says how inputs are told that look like an attack."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema, model_validator

from ._data import DataConfig
from ._section import Section, wrong
from ._values import Count, Index, number


def _inside(value: object) -> float:
    result = number(value)
    if not 0 < result < 1:
        raise ValueError("give a share between 0 and 1, such as 0.01")
    return result


def _named(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("give a list of methods, such as [mahalanobis]")
    return [{"name": each} if isinstance(each, str) else each for each in value]


Inside = Annotated[
    float,
    BeforeValidator(_inside),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
]


class MethodConfig(Section):
    """One detection method; all keys but its name are its settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="which method, in snake case", examples=["mahalanobis"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are given."""
        return dict(self.model_extra or {})


Methods = Annotated[list[MethodConfig], BeforeValidator(_named)]


class DetectConfig(Section):
    """How inputs are told that look like an attack, and how many benign ones may be by mistake."""

    methods: Methods = Field(
        default_factory=lambda: [MethodConfig(name="mahalanobis")],
        description="methods by name, or with settings; several become one score",
    )
    by: Literal["fisher", "max", "harmonic"] | None = Field(
        default=None, description="how several methods become one score; fisher if absent"
    )
    data: DataConfig | None = Field(
        default=None,
        description="benign inputs like those in service, with the keys of data; x_train and "
        "y_train of data's npz if absent",
    )
    calibration: DataConfig | None = Field(
        default=None, description="other benign inputs that the threshold is taken from"
    )
    held_out: Inside = Field(
        default=0.5, description="share of the benign inputs that it is taken from otherwise"
    )
    fpr: Inside = Field(
        default=0.01, description="the most that may be flagged of benign inputs, as a share"
    )
    confidence: Inside = Field(
        default=0.95, description="how sure it is that no more than that are flagged"
    )
    by_class: StrictBool = Field(
        default=False, description="a threshold for each predicted class with enough inputs"
    )
    requests_per_day: Count | None = Field(
        default=None, description="requests in service, to tell false alarms a day"
    )
    seed: Index = Field(default=0, description="seed of the inputs that its power is tried on")
    output: str = Field(default="withstand-detector", description="folder of the detector")

    @model_validator(mode="after")
    def _fits(self) -> DetectConfig:
        if self.calibration is not None and "held_out" in self.model_fields_set:
            raise wrong("held_out", "and calibration are both given; give one of them")
        if self.by is not None and len(self.methods) < 2:
            raise wrong("by", "is only for several methods; take it out")
        return self
