"""Weights on disk: safetensors, state_dicts, and pickles on the user's word."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._errors import ModelError, listed, one_line


def fill(net: nn.Module, path: Path, name: str, *, allow_pickle: bool) -> None:
    """Load a state_dict into a module; raises ModelError that names what does not fit."""
    weights = _read(path, name, allow_pickle=allow_pickle)
    own = net.state_dict()
    # Of tensors that share their memory, safetensors keeps one.
    given = {_place(own[key]) for key in own if key in weights}
    missing = [key for key in own if key not in weights and _place(own[key]) not in given]
    unknown = [key for key in weights if key not in own]
    differing = [
        f"{key} is {list(weights[key].shape)}, the model has {list(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    parts = []
    if missing:
        parts.append(f"missing {listed(missing, 3)}")
    if unknown:
        parts.append(f"unknown {listed(unknown, 3)}")
    if differing:
        parts.append(listed(differing, 2))
    if parts:
        raise ModelError(
            f"weights {name} do not fit the model: {'; '.join(parts)}; use the factory that they "
            "were saved from"
        )
    net.load_state_dict(weights, strict=False)


def _place(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def _read(path: Path, name: str, *, allow_pickle: bool) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ModelError(f"weights {name} are not there; correct model.weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except Exception as error:
        hint = "save a state_dict, or as safetensors"
        if "weights_only" in str(error):
            hint += "; allow_pickle: true opens a pickle that you trust"
        raise ModelError(
            f"weights {name} cannot be read ({type(error).__name__}); {hint}"
        ) from None
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    if not isinstance(weights, dict) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        keys = f" but {listed(map(str, weights), 3)}" if isinstance(weights, dict) else ""
        raise ModelError(
            f"weights {name} hold no state_dict of tensors{keys}; save net.state_dict() alone"
        )
    return weights


def unpickled(path: Path, name: str) -> Any:
    """The object in a pickle, which the user has said to trust."""
    if not path.is_file():
        raise ModelError(f"weights {name} are not there; correct model.weights")
    # Not typed, and needed for nothing else; it opens plain pickles as well.
    joblib = importlib.import_module("joblib")
    try:
        return joblib.load(path)
    except Exception as error:
        raise ModelError(
            f"weights {name} cannot be read ({type(error).__name__}: {one_line(error, 80)}); "
            "write them with joblib.dump"
        ) from None
