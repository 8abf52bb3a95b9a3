"""A checkpoint: one file that is either whole or not there."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .._errors import CheckpointError

_HEAD = b"withstand checkpoint 1\n"


class Checkpoint:
    """What a run has reached, kept in memory and written at most every `every` seconds.

    The content holds tensors and plain values only, so that reading it can run no code. Raises
    CheckpointError for a file that is damaged, or that was written for another fingerprint.
    """

    def __init__(self, path: str | Path, fingerprint: str, *, every: float = 5.0) -> None:
        self.path, self.fingerprint, self.every = Path(path), fingerprint, every
        self.content: dict[str, Any] = self._read()
        self._next = time.monotonic() + every

    @property
    def due(self) -> bool:
        """Whether it is time to write again; never more than 2 % of the time goes into writing."""
        return time.monotonic() >= self._next

    def _read(self) -> dict[str, Any]:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CheckpointError(f"checkpoint {self.path}: {error.strerror}") from None
        digest, body = raw[len(_HEAD) : len(_HEAD) + 64], raw[len(_HEAD) + 65 :]
        if not raw.startswith(_HEAD) or hashlib.sha256(body).hexdigest().encode() != digest:
            raise CheckpointError(
                f"checkpoint {self.path} is damaged; delete it to start from the beginning"
            )
        content = torch.load(io.BytesIO(body), weights_only=True)
        if content.pop("fingerprint") != self.fingerprint:
            raise CheckpointError(
                f"checkpoint {self.path} belongs to another model, data, threat or setting; delete "
                "it to start from the beginning, or give another path"
            )
        return dict(content)

    def save(self, changes: Mapping[str, Any]) -> None:
        """Change some keys (None removes one), and write the file."""
        for key, value in changes.items():
            self.content.pop(key, None)
            if value is not None:
                self.content[key] = value
        began = time.monotonic()
        body = io.BytesIO()
        torch.save({**self.content, "fingerprint": self.fingerprint}, body)
        data = body.getvalue()
        part = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(_HEAD + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CheckpointError(
                f"checkpoint {self.path} cannot be written: {error.strerror}; free space there or "
                "give another path"
            ) from None
        now = time.monotonic()
        self._next = now + max(self.every, 50 * (now - began))

    def remove(self) -> None:
        """Delete the file: the run is over."""
        self.path.unlink(missing_ok=True)
