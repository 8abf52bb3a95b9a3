"""The section that says how the endpoint is attacked with permission."""

from __future__ import annotations

from pydantic import Field

from ._section import Section


class RedteamConfig(Section):
    """How the endpoint is attacked with permission."""

    scope: str = Field(default="scope.yaml", description="signed file of what is permitted")
