"""What somebody calls the model, as the keys that open it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from .._errors import ConfigError

_KINDS = {
    ".onnx": "onnx",
    **dict.fromkeys((".json", ".ubj", ".txt", ".cbm", ".joblib", ".pkl", ".pickle"), "sklearn"),
    **dict.fromkeys((".pt2", ".ts", ".torchscript", ".pt", ".pth", ".safetensors"), "torch"),
}
# A state dict, which needs the network that it belongs to.
_STATES = (".pt", ".pth", ".safetensors")


def model_named(what: str) -> dict[str, Any]:
    """Arguments of `template` for a model's file, its address, or file.py:callable.

    Raises ConfigError for what is none of them.
    """
    if what.startswith(("http://", "https://")):
        return {"model": "http", "url": what}
    suffix = PurePath(what).suffix.lower()
    if suffix in _STATES:
        return {"model": "torch", "factory": "model.py:build", "weights": what}
    if suffix in _KINDS:
        return {"model": _KINDS[suffix], "weights": what}
    place, _, name = what.rpartition(":")
    if place and name.isidentifier():
        return {"model": "torch", "factory": what}
    raise ConfigError(
        f"--model is {what!r}; give a file ({', '.join(sorted(_KINDS))}), an address "
        "(http://...), or file.py:callable"
    )
