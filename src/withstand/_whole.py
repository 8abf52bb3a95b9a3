"""Files that are there as a whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes its name once all of it is on the disk; mode: of the file, less the umask.

    Where the block raises or it cannot be written (OSError), what was there before stays.
    """
    part = _beside(path)
    try:
        with _kept(part, mode) as file:
            yield file
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def together(contents: Mapping[Path, bytes]) -> None:
    """Write files that take their names once the contents of all of them are on the disk.

    Where one cannot be written (OSError), what was there before of all of them stays.
    """
    parts = {path: _beside(path) for path in contents}
    try:
        for path, part in parts.items():
            with _kept(part) as file:
                file.write(contents[path])
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextmanager
def _kept(part: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
