"""The engine and the attacks."""

from ._alma import ALMA
from ._apgd import APGD
from ._apgdt import APGDT
from ._ask import batch_floor
from ._ball import Reach, length, project, reach
from ._boundary import BoundaryAttack
from ._capgd import CAPGD
from ._cgba import CGBA
from ._checkpoint import Checkpoint
from ._contract import Ask, Attack, Query, Seen
from ._craft import craft
from ._cuts import Cuts
from ._cw import CarliniWagner
from ._ddn import DDN
from ._deepfool import DeepFool
from ._engine import run
from ._fab import FAB
from ._fmn import FMN
from ._hopskipjump import HopSkipJump
from ._nes import NES
from ._orthogonal import OrthogonalPGD
from ._pdpgd import PDPGD
from ._pgd import FGSM, PGD
from ._problem import Problem, sample_keys
from ._random import RandomNoise
from ._rays import RayS
from ._registry import registry
from ._result import Curve, Ledger, Result, Status
from ._rows import Donors, Examples, Rows
from ._sigmazero import SigmaZero
from ._signopt import SignOPT
from ._simba import SimBA
from ._sparsers import SparseRS
from ._spatial import Spatial
from ._spsa import SPSA
from ._square import Square
from ._superdeepfool import SuperDeepFool
from ._surfree import SurFree
from ._surrogate import train_surrogate
from ._table_search import TableSearch
from ._table_walk import TableWalk
from ._transfer import TransferPGD
from ._universal import Universal, universal
from ._weighted import WeightedPGD

__all__ = [
    "ALMA",
    "APGD",
    "APGDT",
    "CAPGD",
    "CGBA",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "NES",
    "PDPGD",
    "PGD",
    "SPSA",
    "Ask",
    "Attack",
    "BoundaryAttack",
    "CarliniWagner",
    "Checkpoint",
    "Curve",
    "Cuts",
    "DeepFool",
    "Donors",
    "Examples",
    "HopSkipJump",
    "Ledger",
    "OrthogonalPGD",
    "Problem",
    "Query",
    "RandomNoise",
    "RayS",
    "Reach",
    "Result",
    "Rows",
    "Seen",
    "SigmaZero",
    "SignOPT",
    "SimBA",
    "SparseRS",
    "Spatial",
    "Square",
    "Status",
    "SuperDeepFool",
    "SurFree",
    "TableSearch",
    "TableWalk",
    "TransferPGD",
    "Universal",
    "WeightedPGD",
    "batch_floor",
    "craft",
    "length",
    "project",
    "reach",
    "registry",
    "run",
    "sample_keys",
    "train_surrogate",
    "universal",
]
