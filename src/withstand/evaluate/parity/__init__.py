"""Preprocessing parity: is the served pipeline the evaluated one, and which step differs?"""

from ._difference import Difference
from ._parity import EXPLAINED, TOLERANCE, parity, parity_of
from ._result import Parity
from ._route import Route
from ._search import Explanation
from ._show import show
from ._suspect import Suspect, before

__all__ = [
    "EXPLAINED",
    "TOLERANCE",
    "Difference",
    "Explanation",
    "Parity",
    "Route",
    "Suspect",
    "before",
    "parity",
    "parity_of",
    "show",
]
