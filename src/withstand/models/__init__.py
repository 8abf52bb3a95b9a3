"""Adapters: whatever the user has, behind one small protocol."""

from ._adapt import adapt
from ._callable import FunctionModel, sklearn_model
from ._describe import describe
from ._detecting import Detecting
from ._differentiable import Differentiable
from ._ensemble import Ensemble
from ._load import load_model
from ._pipeline import Pipeline
from ._protocol import Gradient, Model, Objective
from ._randomized import Randomized
from ._torch import TorchModel

__all__ = [
    "Detecting",
    "Differentiable",
    "Ensemble",
    "FunctionModel",
    "Gradient",
    "Model",
    "Objective",
    "Pipeline",
    "Randomized",
    "TorchModel",
    "adapt",
    "describe",
    "load_model",
    "sklearn_model",
]
