"""Robust training: recipes, and the trainer that runs any of them at a cost that it tells."""

from ._active import ActivePGD
from ._augment import Augmented, Round, augment
from ._awp import AWP
from ._certified import IBP, MTLIBP, CrownIBP, ibp_weights
from ._contract import Lost, Moment, Recipe, Withstanding
from ._cost import Cost
from ._crafting import Ball, around, climb, crafting, slope
from ._directions import directions
from ._distil import RSLAD, DefensiveDistillation, Tempered
from ._fgsm import FGSM, NFGSM
from ._finetune import Change, Finetuned, finetune
from ._from_config import HardenSetup, from_config, run_config
from ._harden import harden
from ._noise import NoiseAugmented
from ._penalties import GradientPenalty, JacobianPenalty, LipschitzPenalty, lipschitz_bound
from ._pgd import PGD
from ._replay import Replay
from ._result import Alarm, Epoch, Hardened
from ._schedule import adam, constant, cyclic, flat, restarted, sgd
from ._several import Alternating, Average, Worst, extreme_norms
from ._show import show_made, show_union, union_of
from ._spatial import Spatial
from ._standard import Standard
from ._tabular import Tabular
from ._trades import TRADES
from ._watch import Seen, withstood

__all__ = [
    "AWP",
    "FGSM",
    "IBP",
    "MTLIBP",
    "NFGSM",
    "PGD",
    "RSLAD",
    "TRADES",
    "ActivePGD",
    "Alarm",
    "Alternating",
    "Augmented",
    "Average",
    "Ball",
    "Change",
    "Cost",
    "CrownIBP",
    "DefensiveDistillation",
    "Epoch",
    "Finetuned",
    "GradientPenalty",
    "HardenSetup",
    "Hardened",
    "JacobianPenalty",
    "LipschitzPenalty",
    "Lost",
    "Moment",
    "NoiseAugmented",
    "Recipe",
    "Replay",
    "Round",
    "Seen",
    "Spatial",
    "Standard",
    "Tabular",
    "Tempered",
    "Withstanding",
    "Worst",
    "adam",
    "around",
    "augment",
    "climb",
    "constant",
    "crafting",
    "cyclic",
    "directions",
    "extreme_norms",
    "finetune",
    "flat",
    "from_config",
    "harden",
    "ibp_weights",
    "lipschitz_bound",
    "restarted",
    "run_config",
    "sgd",
    "show_made",
    "show_union",
    "slope",
    "union_of",
    "withstood",
]
