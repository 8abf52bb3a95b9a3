"""What exactly was attacked, for reports."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
from torch import nn

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
    from; an estimator or a function from code has none. layers: what a network's modules and its
    preprocessing are, by the text that they show and what the code of their own names (16 hex
    digits), not by what variables and other functions hold; steps: the same of a pipeline's.
    """
    inner = getattr(model, "model", None)
    told: dict[str, Any] = {"kind": type(model).__name__.lstrip("_"), "access": model.access}
    if isinstance(model, TorchModel):
        told |= {
            "net": type(model.net).__name__,
            "parameters": sum(p.numel() for p in model.net.parameters()),
            "digest": _digest(model.net),
            # The same weights behind another activation are another model.
            "layers": _short(_shown(model.net) + _step(model.preprocess)),
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
        others = [step for step in model.steps if not isinstance(step, InputTransform)]
        told |= {"steps": _short("".join(map(_step, others)))} if others else {}
    if isinstance(model, Thresholded):
        told["threshold"] = model.threshold
    if isinstance(model, Declared):
        told["defences"] = [defence.name for defence in model.defences]
    if isinstance(inner, Model):
        told["model"] = describe(inner)
    if isinstance(model, Ensemble):
        told["models"] = [describe(member) for member in model.models]
    return told


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _step(step: object) -> str:
    """What is done before a model, with its weights; empty for nothing."""
    if step is None:
        return ""
    return _shown(step) + (_digest(step) if isinstance(step, nn.Module) else "")


def _shown(part: object) -> str:
    """What a module or function computes, as far as that shows."""
    told = _ADDRESS.sub("", repr(part))
    for one in part.modules() if isinstance(part, nn.Module) else (part,):
        kind = type(one)
        called = getattr(kind, "forward", None) if isinstance(one, nn.Module) else one
        code = getattr(called, "__code__", None)
        # Torch's own modules show all that they are, and change with its version.
        if code is not None and kind.__module__.partition(".")[0] != "torch":
            told += f"{code.co_names}{[c for c in code.co_consts if isinstance(c, float)]}"
    return told


def _digest(net: nn.Module) -> str:
    """sha256 (hex) over names, types, shapes and bytes of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        # As bytes, since numpy does not know all of torch's types.
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
