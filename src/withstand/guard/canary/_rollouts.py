"""The rollouts of a guard, in a file, so that they outlive a restart."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from ..._errors import ConfigError
from .._kept import keep
from ._rollout import Rollout, State


class Rollouts:
    """One for each version that is let in; raises ConfigError for a file that is none.

    secret: under which clients are spread over the arms.
    """

    def __init__(self, path: Path, secret: bytes) -> None:
        self._path, self._secret = path, secret
        self._told: dict[str, dict[str, Any]] = {}
        try:
            if path.exists():
                self._told = json.loads(path.read_text())
            for identity, told in self._told.items():
                _sound(identity, told)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(
                f"canary {path} cannot be read; restore the file, or remove it to begin anew"
            ) from None

    def of(self, identity: str) -> Rollout:
        """The rollout of a version as it was left, or one that is off."""
        return Rollout(
            self._told.get(identity), keep=lambda told: self._keep(identity, told),
            secret=self._secret,
        )  # fmt: skip

    def only(self, identities: Collection[str]) -> None:
        """Forget all others: a version that is taken out begins anew when it comes back."""
        gone = [identity for identity in self._told if identity not in identities]
        for identity in gone:
            del self._told[identity]
        if gone:
            keep(self._path, json.dumps(self._told))

    def _keep(self, identity: str, told: dict[str, Any]) -> None:
        keep(self._path, json.dumps({**self._told, identity: told}))
        self._told[identity] = told


def _sound(identity: str, told: dict[str, Any]) -> None:
    """Raises what reading it would raise, and ValueError for a state that cannot be."""
    weight = float(told["weight"])
    if told["state"] not in get_args(State) or not 0 <= weight <= 100:
        raise ValueError(identity)
    if told["state"] in ("off", "rolled_back") and weight:
        raise ValueError(identity)
    Rollout(told)
