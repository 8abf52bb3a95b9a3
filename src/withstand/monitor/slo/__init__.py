"""SLIs, what is promised of them, and how fast the promise is being broken."""

from ._burn import Burn, Tally, burns
from ._slis import SLIS, Sli
from ._slo import RULES, Rule, Slo, slos_of, unreachable

__all__ = [
    "RULES",
    "SLIS",
    "Burn",
    "Rule",
    "Sli",
    "Slo",
    "Tally",
    "burns",
    "slos_of",
    "unreachable",
]
