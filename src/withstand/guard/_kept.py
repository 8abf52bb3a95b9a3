"""Small files of what must outlive a restart."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .._errors import ConfigError


def keep(path: Path, text: str) -> None:
    """Write a small file of the guard's state, wholly or not at all; raises ConfigError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); make room, or give another guard.state"
        ) from None
