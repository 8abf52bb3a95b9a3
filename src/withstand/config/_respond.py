"""The section that says what is done about alerts."""

from __future__ import annotations

from pydantic import Field

from ._section import Section


class RespondConfig(Section):
    """What is done about alerts."""

    runbooks: str = Field(default="runbooks", description="folder of runbooks, one YAML file each")
