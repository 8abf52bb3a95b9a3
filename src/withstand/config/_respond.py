"""The section that says what is done about alerts."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema

from ._model import ModelConfig
from ._section import Section
from ._tensor import Shape
from ._values import Count, Positive


def _hook(value: object) -> object:
    text = value if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("give a URL, such as http://127.0.0.1:9000/hook")
    if parts.username or parts.password:
        raise ValueError("take the user out of the URL")
    return value


Hook = Annotated[
    str, BeforeValidator(_hook), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]


class ReplayConfig(Section):
    """How recorded inputs are asked again."""

    models: dict[str, ModelConfig] = Field(
        default_factory=dict,
        description="models by name that recorded inputs are shown to, such as current, previous "
        "and a surrogate",
    )
    input: str = Field(default="", description="which input of a request; the first if absent")
    shape: Shape | None = Field(
        default=None, description="shape of a row as the models take it; as it came if absent"
    )
    scale: Positive = Field(default=1.0, description="values are divided by this")
    channels_last: StrictBool = Field(default=False, description="HxWxC becomes CxHxW")
    most: Count = Field(default=500, description="inputs of one incident that are replayed")


class RetrainConfig(Section):
    """How a hardened model is made of what an incident has brought."""

    config: str | None = Field(
        default=None, description="configuration of model, data and harden; this file if absent"
    )
    gate: StrictBool = Field(default=True, description="ask the gate about the new weights")


class RespondConfig(Section):
    """What is done about alerts."""

    folder: str = Field(
        default="withstand-incidents",
        description="folder of what belongs to incidents: evidence, replays, logs, postmortems",
    )
    runbooks: str = Field(default="runbooks", description="folder of runbooks, one YAML file each")
    automatic: list[str] = Field(
        default_factory=list,
        description="runbooks that begin by themselves on the incidents that they are for; steps "
        "that ask for approval wait for it",
    )
    tickets: StrictBool = Field(
        default=False, description="alerts that wake nobody open incidents, too"
    )
    group_by: list[str] = Field(
        default_factory=lambda: ["alertname", "model", "slo"],
        description="labels by which alerts without a campaign share an incident",
    )
    every: Positive = Field(default=2.0, description="seconds between two looks at the alerts")
    corpus: str = Field(
        default="corpus", description="folder of the corpus that confirmed inputs are added to"
    )
    notify: dict[str, Hook] = Field(
        default_factory=dict,
        description="addresses by name that a step notify may send to; nothing else is asked",
        examples=["{chat: http://127.0.0.1:9000/hook}"],
    )
    replay: ReplayConfig = Field(
        default_factory=ReplayConfig, description="how recorded inputs are asked again"
    )
    retrain: RetrainConfig = Field(
        default_factory=RetrainConfig, description="how a hardened model is made"
    )
