"""What exactly was attacked, for reports."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch

from ._callable import FunctionModel
from ._declared import Declared
from ._ensemble import Ensemble
from ._input_transform import InputTransform
from ._onnx import OnnxScores
from ._pipeline import Pipeline
from ._protocol import Model
from ._threshold import Thresholded
from ._torch import TorchModel

# Another in every process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def describe(model: Model) -> dict[str, Any]:
    """The model as plain values: kind, access, the class and size of a network, a digest.

    digest: sha256 (hex) of a network's weights, or of the file that an estimator or a graph came
    from; an estimator or a function from code has none. layers: what a network's modules are, by
    the text that torch shows of them (16 hex digits).
    """
    inner = getattr(model, "model", None)
    told: dict[str, Any] = {"kind": type(model).__name__.lstrip("_"), "access": model.access}
    if isinstance(model, TorchModel):
        told |= {
            "net": type(model.net).__name__,
            "parameters": sum(p.numel() for p in model.net.parameters()),
            "digest": _digest(model),
            # The same weights behind another activation are another model.
            "layers": hashlib.sha256(_ADDRESS.sub("", repr(model.net)).encode()).hexdigest()[:16],
        }
    if isinstance(model, FunctionModel) and model.estimator is not None:
        told["estimator"] = type(model.estimator).__name__
        told |= {"digest": model.digest} if model.digest else {}
    facts = getattr(model, "facts", None)
    if callable(facts):
        told |= facts()
    if isinstance(model, OnnxScores):
        told |= {"note": model.note, "digest": model.digest}
    if isinstance(model, Pipeline):
        changes = [repr(s.change) for s in model.steps if isinstance(s, InputTransform)]
        told |= {"transforms": changes} if changes else {}
    if isinstance(model, Thresholded):
        told["threshold"] = model.threshold
    if isinstance(model, Declared):
        told["defences"] = [defence.name for defence in model.defences]
    if isinstance(inner, Model):
        told["model"] = describe(inner)
    if isinstance(model, Ensemble):
        told["models"] = [describe(member) for member in model.models]
    return told


def _digest(model: TorchModel) -> str:
    """sha256 (hex) over names, types, shapes and bytes of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in model.net.state_dict().items():
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        # As bytes, since numpy does not know all of torch's types.
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
