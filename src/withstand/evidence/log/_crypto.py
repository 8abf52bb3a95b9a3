"""The one place where cryptography is imported, which is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..._errors import EvidenceError


def cryptography(module: str) -> Any:
    """A module of the package cryptography; raises EvidenceError where it is not installed."""
    try:
        return import_module(f"cryptography.{module}")
    except ModuleNotFoundError:
        raise EvidenceError(
            "signed and encrypted evidence needs cryptography; pip install 'withstand[serve]'"
        ) from None
