"""The engine and the attacks."""

from ._apgd import APGD
from ._apgdt import APGDT
from ._checkpoint import Checkpoint
from ._contract import Ask, Attack, Query, Seen
from ._engine import run
from ._fmn import FMN
from ._hopskipjump import HopSkipJump
from ._pgd import FGSM, PGD
from ._problem import Problem, sample_keys
from ._random import RandomNoise
from ._registry import registry
from ._result import Curve, Ledger, Result, Status
from ._square import Square

__all__ = [
    "APGD",
    "APGDT",
    "FGSM",
    "FMN",
    "PGD",
    "Ask",
    "Attack",
    "Checkpoint",
    "Curve",
    "HopSkipJump",
    "Ledger",
    "Problem",
    "Query",
    "RandomNoise",
    "Result",
    "Seen",
    "Square",
    "Status",
    "registry",
    "run",
    "sample_keys",
]
