"""The section that says how a new version of a model is let in."""

from __future__ import annotations

from pydantic import Field

from ._section import Section
from ._url import Url


class CanaryConfig(Section):
    """A new version of a model, and how it is let in."""

    upstream: Url = Field(
        description="server of the new version", examples=["http://127.0.0.1:8082"]
    )
    version: str = Field(default="", description="its version, for evidence")
    weights: str = Field(default="", description="digest of its weights, for evidence")
