"""The engine and the attacks."""

from ._apgd import APGD
from ._contract import Attack, Query, Seen
from ._engine import Ledger, Result, Status, run
from ._pgd import FGSM, PGD
from ._problem import Problem

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "Attack",
    "Ledger",
    "Problem",
    "Query",
    "Result",
    "Seen",
    "Status",
    "run",
]
