"""Flagged requests that belong together."""

from ._distinct import Distinct
from ._grouper import Grouper, Seen

__all__ = ["Distinct", "Grouper", "Seen"]
