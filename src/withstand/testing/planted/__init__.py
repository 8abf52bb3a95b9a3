"""Networks and attacks with planted defects: what a diagnosis must notice, by name.

Each function takes a soundly trained module, which maps pictures (B, C, H, W) in [0, 1] to logits,
and returns a defective one of the same interface; the module handed in stays as it is. Detection
methods that cheat are for the evaluation of detectors to expose.
"""

from ._attacks import DefectiveAttack, last_iterate, wrong_sign
from ._detectors import BatchPeek, InputMemory, LabelLeak, RoundingMemory
from ._handed import batch_norm_training, bf16_stem, constant, softmax_output, training_mode
from ._kwta import kwta
from ._overfitted import fgsm_overfit
from ._random import dropout_on, random_resize
from ._saturated import distilled, scaled
from ._shattered import detached, jpeg, quantiser, thermometer, zero_gradient
from ._table import PLANTED, Planted

__all__ = [
    "PLANTED",
    "BatchPeek",
    "DefectiveAttack",
    "InputMemory",
    "LabelLeak",
    "Planted",
    "RoundingMemory",
    "batch_norm_training",
    "bf16_stem",
    "constant",
    "detached",
    "distilled",
    "dropout_on",
    "fgsm_overfit",
    "jpeg",
    "kwta",
    "last_iterate",
    "quantiser",
    "random_resize",
    "scaled",
    "softmax_output",
    "thermometer",
    "training_mode",
    "wrong_sign",
    "zero_gradient",
]
