"""The section that says where the pages are."""

from __future__ import annotations

from pydantic import Field

from ._guard import Address
from ._section import Section


class UiConfig(Section):
    """Where the pages are."""

    listen: Address = Field(default="127.0.0.1:8103", description="where browsers ask")
