"""Adapters: whatever the user has, behind one small protocol."""

from ._callable import FunctionModel, sklearn_model
from ._protocol import Gradient, Model, Objective
from ._torch import TorchModel

__all__ = ["FunctionModel", "Gradient", "Model", "Objective", "TorchModel", "sklearn_model"]
