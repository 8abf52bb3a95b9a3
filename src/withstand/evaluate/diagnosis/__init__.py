"""Whether a robust accuracy can be believed: checks before, during and after the attacks."""

from ._before import handed_in
from ._check import Case, Check, HandedIn, Purse
from ._diagnose import CHECKS, judge
from ._foreign import ForeignAttack, diagnose_attack
from ._trace import Trace, traced

__all__ = [
    "CHECKS",
    "Case",
    "Check",
    "ForeignAttack",
    "HandedIn",
    "Purse",
    "Trace",
    "diagnose_attack",
    "handed_in",
    "judge",
    "traced",
]
