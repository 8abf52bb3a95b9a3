"""Files of incidents: there as a whole, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .._errors import OutputError
from .._whole import whole


@contextmanager
def private(path: Path) -> Iterator[BinaryIO]:
    """A whole file that its owner alone can read; raises OutputError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole(path, 0o600) as file:
            yield file
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free space there"
        ) from None


def put(path: Path, text: str) -> None:
    """Write a text; raises OutputError."""
    with private(path) as file:
        file.write(text.encode())


def digest(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
