"""The section that says how robustness is proven."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from ._section import Section, wrong
from ._values import Count, Index, Positive, number


def _radii(value: object) -> list[float]:
    try:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError
        radii = [number(v) for v in value]
    except ValueError:
        radii = [0.0]
    if min(radii) <= 0:
        raise ValueError("give a list of radii above 0, such as [0.25, 0.5]")
    return sorted(radii)


def _alpha(value: object) -> float:
    result = number(value)
    if not 0 < result < 0.5:
        raise ValueError("give more than 0 and less than 0.5, such as 0.001")
    return result


Radii = Annotated[
    list[float],
    BeforeValidator(_radii),
    WithJsonSchema({"type": "array", "items": {"type": ["number", "string"]}, "minItems": 1}),
]
Alpha = Annotated[
    float,
    BeforeValidator(_alpha),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}),
]

_ONLY = {
    "smoothing": ("sigma", "alpha", "draws", "select", "sequential", "radii", "tolerance", "seed"),
    "bounds": ("bound",),
    "trees": ("seconds",),
}


class CertifyConfig(Section):
    """How it is proven that an attacker cannot succeed, whatever they try."""

    method: Literal["smoothing", "bounds", "trees"] = Field(
        description="smoothing: of the model's most frequent answer under noise; bounds: of the "
        "model itself; trees: of an ensemble of trees, row by row",
        examples=["smoothing"],
    )
    sigma: Positive | None = Field(
        default=None, description="smoothing: the noise's standard deviation, in raw input units"
    )
    alpha: Alpha = Field(
        default=0.001, description="smoothing: the probability that a certificate is wrong"
    )
    draws: Count = Field(
        default=100_000, description="smoothing: the most noisy copies of one input"
    )
    select: Count = Field(
        default=100, description="smoothing: noisy copies that choose the answer to be proven"
    )
    sequential: StrictBool = Field(
        default=True, description="smoothing: stop each input as soon as its radius is settled"
    )
    radii: Radii | None = Field(
        default=None, description="smoothing: radii to be settled besides the threat's own"
    )
    tolerance: Positive | None = Field(
        default=None, description="smoothing: how precisely a radius between `radii` shall be known"
    )
    seed: Index = Field(default=0, description="smoothing: seed of the noise")
    bound: Literal["ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown"] = Field(
        default="alpha-crown",
        description="bounds: the dearest that is tried; cheaper ones go first. beta-crown splits "
        "cases, for small networks",
    )
    seconds: Positive = Field(
        default=2.0, description="trees: the longest time for one row, which else is undecided"
    )
    output: str | None = Field(
        default=None, description="folder of certificates.json; that of the report if absent"
    )

    @model_validator(mode="after")
    def _fits(self) -> CertifyConfig:
        for method, keys in _ONLY.items():
            for key in keys:
                if key in self.model_fields_set and method != self.method:
                    raise wrong(key, f"is only for method {method}, not {self.method}; take it out")
        if self.method == "smoothing" and self.sigma is None:
            raise wrong("sigma", "is missing; method smoothing needs it, e.g. sigma: 0.25")
        return self
