"""Small files of what must outlive a restart."""

from __future__ import annotations

from pathlib import Path

from .._errors import ConfigError
from .._whole import whole


def keep(path: Path, text: str) -> None:
    """Write a small file of the guard's state, wholly or not at all; raises ConfigError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); make room, or give another guard.state"
        ) from None
