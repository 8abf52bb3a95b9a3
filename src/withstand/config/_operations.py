"""The sections for a model in service."""

from __future__ import annotations

from pydantic import Field

from ._guard import GuardConfig
from ._monitor import MonitorConfig
from ._redteam import RedteamConfig
from ._respond import RespondConfig
from ._section import Section
from ._ui import UiConfig


class Operations(Section):
    """What guard, monitor, responder, campaigns and pages share; no model and no data."""

    guard: GuardConfig | None = None
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)
    respond: RespondConfig = Field(default_factory=RespondConfig)
    redteam: RedteamConfig = Field(default_factory=RedteamConfig)
    ui: UiConfig = Field(default_factory=UiConfig)
