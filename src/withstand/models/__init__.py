"""Adapters: whatever the user has, behind one small protocol."""

from ._adapt import adapt
from ._bit_depth import BitDepth
from ._callable import FunctionModel, sklearn_model
from ._cost import inference_cost, measured_defences
from ._declared import Declared, averaged, defences_of, seen_through
from ._defence import Adaptive, Defence
from ._defended import Defended
from ._describe import describe
from ._detecting import Detecting, detects
from ._differentiable import Differentiable
from ._distilled import Tempered, distilled
from ._ensemble import Ensemble
from ._forward import differentiable, members_of, network_of
from ._http import HttpModel, HttpSettings
from ._http_tally import counted, rows_sent
from ._input_transform import InputTransform, input_transform
from ._jpeg import Jpeg
from ._load import defended, load_model, with_defences
from ._median import Median
from ._onnx import OnnxScores, load_onnx
from ._physical import (
    Affine,
    Blur,
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
from ._resize_and_pad import ResizeAndPad
from ._sloped import Sloped
from ._smoothed import Smoothed
from ._straight import StraightThrough, standing_in, straight_through
from ._threshold import Thresholded
from ._torch import TorchModel
from ._total_variation import TotalVariation
from ._trees import load_trees, trees_model

__all__ = [
    "Adaptive",
    "Affine",
    "BitDepth",
    "Blur",
    "Declared",
    "Defence",
    "Defended",
    "Detecting",
    "Differentiable",
    "Ensemble",
    "FunctionModel",
    "Gradient",
    "HttpModel",
    "HttpSettings",
    "InputTransform",
    "Jpeg",
    "Light",
    "Median",
    "Model",
    "Noise",
    "Objective",
    "OnnxScores",
    "Physical",
    "Pipeline",
    "Randomized",
    "ResizeAndPad",
    "Sloped",
    "Smoothed",
    "StraightThrough",
    "Tempered",
    "Thresholded",
    "TorchModel",
    "TotalVariation",
    "Transform",
    "adapt",
    "averaged",
    "counted",
    "defences_of",
    "defended",
    "describe",
    "detects",
    "differentiable",
    "distilled",
    "inference_cost",
    "input_transform",
    "load_model",
    "load_onnx",
    "load_trees",
    "measured_defences",
    "members_of",
    "motions",
    "moved",
    "network_of",
    "print_and_camera",
    "rows_sent",
    "seen_through",
    "sklearn_model",
    "standing_in",
    "straight_through",
    "trees_model",
    "warp",
    "with_defences",
]
