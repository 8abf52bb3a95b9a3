"""The section that says what is measured while the model is in service."""

from __future__ import annotations

from pydantic import Field

from ._section import Section


class MonitorConfig(Section):
    """What is measured of a model in service, and who is told."""

    folder: str = Field(
        default="withstand-monitor",
        description="folder of what operations know: alerts, incidents, probes, audit",
    )
