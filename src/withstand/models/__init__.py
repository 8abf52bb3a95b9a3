"""Adapters: whatever the user has, behind one small protocol."""

from ._adapt import adapt
from ._callable import FunctionModel, sklearn_model
from ._defended import Defended
from ._describe import describe
from ._detecting import Detecting
from ._differentiable import Differentiable
from ._ensemble import Ensemble
from ._http import HttpModel, HttpSettings
from ._load import load_model
from ._onnx import OnnxScores, load_onnx
from ._physical import (
    Affine,
    Blur,
    Jpeg,
    Light,
    Noise,
    Physical,
    Transform,
    motions,
    moved,
    print_and_camera,
    warp,
)
from ._pipeline import Pipeline
from ._protocol import Gradient, Model, Objective
from ._randomized import Randomized
from ._smoothed import Smoothed
from ._straight import StraightThrough, straight_through
from ._torch import TorchModel
from ._trees import load_trees, trees_model

__all__ = [
    "Affine",
    "Blur",
    "Defended",
    "Detecting",
    "Differentiable",
    "Ensemble",
    "FunctionModel",
    "Gradient",
    "HttpModel",
    "HttpSettings",
    "Jpeg",
    "Light",
    "Model",
    "Noise",
    "Objective",
    "OnnxScores",
    "Physical",
    "Pipeline",
    "Randomized",
    "Smoothed",
    "StraightThrough",
    "TorchModel",
    "Transform",
    "adapt",
    "describe",
    "load_model",
    "load_onnx",
    "load_trees",
    "motions",
    "moved",
    "print_and_camera",
    "sklearn_model",
    "straight_through",
    "trees_model",
    "warp",
]
