"""All attacks by name: ours, and those that other packages announce."""

from __future__ import annotations

from importlib.metadata import entry_points

from ._alma import ALMA
from ._apgd import APGD
from ._apgdt import APGDT
from ._boundary import BoundaryAttack
from ._capgd import CAPGD
from ._cgba import CGBA
from ._contract import Attack
from ._cw import CarliniWagner
from ._ddn import DDN
from ._deepfool import DeepFool
from ._fab import FAB
from ._fmn import FMN
from ._hopskipjump import HopSkipJump
from ._nes import NES
from ._orthogonal import OrthogonalPGD
from ._pdpgd import PDPGD
from ._pgd import FGSM, PGD
from ._random import RandomNoise
from ._rays import RayS
from ._sigmazero import SigmaZero
from ._signopt import SignOPT
from ._simba import SimBA
from ._sparsers import SparseRS
from ._spatial import Spatial
from ._spsa import SPSA
from ._square import Square
from ._superdeepfool import SuperDeepFool
from ._surfree import SurFree
from ._table_search import TableSearch
from ._table_walk import TableWalk
from ._transfer import TransferPGD
from ._weighted import WeightedPGD

_OURS = (
    ALMA,
    APGD,
    APGDT,
    BoundaryAttack,
    CAPGD,
    CarliniWagner,
    CGBA,
    DDN,
    DeepFool,
    FAB,
    FGSM,
    FMN,
    HopSkipJump,
    NES,
    OrthogonalPGD,
    PDPGD,
    PGD,
    RandomNoise,
    RayS,
    SigmaZero,
    SignOPT,
    SimBA,
    SparseRS,
    Spatial,
    SPSA,
    Square,
    SuperDeepFool,
    SurFree,
    TableSearch,
    TableWalk,
    TransferPGD,
    WeightedPGD,
)


def registry() -> dict[str, type[Attack]]:
    """Attack classes by name; the entry point group `withstand.attacks` adds to them."""
    found: dict[str, type[Attack]] = {attack.__name__: attack for attack in _OURS}
    for entry in entry_points(group="withstand.attacks"):
        found[entry.name] = entry.load()
    return dict(sorted(found.items()))
