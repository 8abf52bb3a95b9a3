"""The engine and the attacks."""

from ._apgd import APGD
from ._apgdt import APGDT
from ._boundary import BoundaryAttack
from ._cgba import CGBA
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
from ._rays import RayS
from ._registry import registry
from ._result import Curve, Ledger, Result, Status
from ._sigmazero import SigmaZero
from ._signopt import SignOPT
from ._square import Square
from ._superdeepfool import SuperDeepFool
from ._surfree import SurFree

__all__ = [
    "APGD",
    "APGDT",
    "CGBA",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "PDPGD",
    "PGD",
    "Ask",
    "Attack",
    "BoundaryAttack",
    "CarliniWagner",
    "Checkpoint",
    "Curve",
    "DeepFool",
    "HopSkipJump",
    "Ledger",
    "Problem",
    "Query",
    "RandomNoise",
    "RayS",
    "Result",
    "Seen",
    "SigmaZero",
    "SignOPT",
    "Square",
    "Status",
    "SuperDeepFool",
    "SurFree",
    "registry",
    "run",
    "sample_keys",
]
