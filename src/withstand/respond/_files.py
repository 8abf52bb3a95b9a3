"""Files of incidents: there as a whole, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .._errors import OutputError


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when all of it is on the disk; raises OutputError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free space there"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def put(path: Path, text: str) -> None:
    """Write a text; raises OutputError."""
    with whole(path) as file:
        file.write(text.encode())


def digest(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
