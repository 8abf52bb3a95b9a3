"""The sections that name defences, in front of the model and side by side."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, StrictBool, model_validator

from ._model import ModelConfig
from ._section import Section, wrong
from ._values import Count, Positive, Share

DefenceName = Literal[
    "bit_depth", "distilled", "jpeg", "median", "noise", "resize_and_pad", "total_variation"
]
_ONLY: dict[str, tuple[DefenceName, ...]] = {
    "bits": ("bit_depth",),
    "temperature": ("distilled",),
    "quality": ("jpeg",),
    "subsample": ("jpeg",),
    "size": ("median",),
    "sigma": ("noise",),
    "smallest": ("resize_and_pad",),
    "weight": ("total_variation",),
    "steps": ("total_variation",),
    "draws": ("noise", "resize_and_pad"),
}


class DefenceConfig(Section):
    """One defence and its settings."""

    name: DefenceName = Field(description="which defence", examples=["jpeg"])
    bits: Count | None = Field(default=None, description="bit_depth: levels are 2^bits")
    temperature: Positive | None = Field(
        default=None, description="distilled: the temperature that the model was trained at"
    )
    quality: Count | None = Field(default=None, description="jpeg: 1 to 100")
    subsample: StrictBool | None = Field(
        default=None, description="jpeg: colour at half the resolution"
    )
    size: Count | None = Field(default=None, description="median: width of the window, odd")
    sigma: Positive | None = Field(
        default=None, description="noise: standard deviation, as a share of the domain"
    )
    smallest: Share | None = Field(
        default=None, description="resize_and_pad: the least size, as a share of the input's"
    )
    weight: Positive | None = Field(
        default=None, description="total_variation: how much flatness counts"
    )
    steps: Count | None = Field(default=None, description="total_variation: steps of the solver")
    draws: Count | None = Field(
        default=None, description="random ones: how many draws an answer is a mean of"
    )

    @model_validator(mode="after")
    def _fits(self) -> DefenceConfig:
        for key, names in _ONLY.items():
            if key in self.model_fields_set and self.name not in names:
                only = " or ".join(names)
                raise wrong(key, f"is only for {only}, not {self.name}; take it out")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are given."""
        given = self.model_dump(exclude_none=True)
        return {key: value for key, value in given.items() if key != "name"}


class CompareConfig(Section):
    """One entry of a comparison: another model, several that answer together, or defences."""

    name: str | None = Field(default=None, description="what tables call it; else made up from it")
    model: ModelConfig | None = Field(
        default=None, description="the entry's own model; the file's if absent"
    )
    members: list[ModelConfig] = Field(
        default_factory=list, description="models that answer together, instead of one"
    )
    combine: Literal["probabilities", "logits", "vote"] = Field(
        default="probabilities", description="members: what is averaged, or that they vote"
    )
    defences: list[DefenceConfig] = Field(
        default_factory=list, description="defences of it, the first one meets the input first"
    )
    training_cost: Positive | None = Field(
        default=None,
        description="its training over standard training; if absent, what the harden.json beside "
        "the weights tells, of several models in all",
    )

    @model_validator(mode="after")
    def _something(self) -> CompareConfig:
        if self.model is not None and self.members:
            raise wrong("members", "and model are both given; give one of them")
        if self.model is None and not self.members and not self.defences:
            raise wrong(
                "defences", "are missing, and so are model and members; give at least one, "
                "e.g. defences: [{name: jpeg}]"
            )  # fmt: skip
        return self
