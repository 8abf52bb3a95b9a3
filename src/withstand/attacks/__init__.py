"""The engine and the attacks."""

from ._apgd import APGD
from ._apgdt import APGDT
from ._checkpoint import Checkpoint
from ._contract import Ask, Attack, Query, Seen
from ._cw import CarliniWagner
from ._ddn import DDN
from ._deepfool import DeepFool
from ._engine import run
from ._fab import FAB
from ._fmn import FMN
from ._hopskipjump import HopSkipJump
from ._pdpgd import PDPGD
from ._pgd import FGSM, PGD
from ._problem import Problem, sample_keys
from ._random import RandomNoise
from ._registry import registry
from ._result import Curve, Ledger, Result, Status
from ._sigmazero import SigmaZero
from ._square import Square
from ._superdeepfool import SuperDeepFool

__all__ = [
    "APGD",
    "APGDT",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "PDPGD",
    "PGD",
    "Ask",
    "Attack",
    "CarliniWagner",
    "Checkpoint",
    "Curve",
    "DeepFool",
    "HopSkipJump",
    "Ledger",
    "Problem",
    "Query",
    "RandomNoise",
    "Result",
    "Seen",
    "SigmaZero",
    "Square",
    "Status",
    "SuperDeepFool",
    "registry",
    "run",
    "sample_keys",
]
