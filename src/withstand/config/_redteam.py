"""The section that says how the endpoint is attacked with permission."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ._data import DataConfig
from ._model import ModelConfig
from ._section import Section, wrong
from ._values import Columns, Count, Index, Positive, Seconds


class ProbeConfig(Section):
    """One attack of a campaign."""

    name: str = Field(
        description="an attack that needs scores or labels, or transfer: examples made on "
        "redteam.surrogates, each shown once",
        examples=["Square"],
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="its settings, such as {queries: 200}"
    )


class RedteamConfig(Section):
    """How the endpoint is attacked with permission."""

    scope: str = Field(default="scope.yaml", description="signed file of what is permitted")
    signers: dict[str, str] = Field(
        default_factory=dict,
        description="who may permit: names and public keys, which `withstand redteam keygen` makes",
    )
    target: ModelConfig | None = Field(
        default=None, description="the endpoint, a model of kind http, with the red team's API key"
    )
    data: DataConfig | None = Field(default=None, description="inputs that are attacked")
    inputs: Count = Field(default=50, description="so many of them are attacked")
    benign: Index = Field(
        default=50, description="so many of the next ones are sent as they are, for false alarms"
    )
    norm: Literal["linf", "l2", "l1", "l0"] = Field(
        default="linf", description="how a change is measured"
    )
    eps: Positive = Field(
        default=8 / 255, description="radius in units of the raw input, or the number of features"
    )
    frozen: Columns | None = Field(
        default=None, description="indices of the features that the attacker cannot change"
    )
    attacks: list[ProbeConfig] = Field(
        default=[ProbeConfig(name="Square", options={"queries": 500})],
        description="what is tried, one after the other",
    )
    surrogates: list[ModelConfig] = Field(
        default_factory=list, description="models with gradients, for transfer"
    )
    seed: Index = Field(default=0, description="seed of all randomness")
    every: Seconds | None = Field(
        default=None, description="seconds between two campaigns of `withstand redteam watch`"
    )

    @model_validator(mode="after")
    def _fits(self) -> RedteamConfig:
        if self.target is not None and self.target.kind != "http":
            raise wrong("target", f"is of kind {self.target.kind}; an endpoint is of kind http")
        if not self.attacks:
            raise wrong("attacks", "is empty; name one, e.g. [{name: Square}]")
        if not self.surrogates and any(one.name == "transfer" for one in self.attacks):
            raise wrong("surrogates", "is missing, and transfer needs one")
        return self
