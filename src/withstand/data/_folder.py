"""Folders that hold one folder of files for each class."""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path

from .._errors import DataError
from ._prepare import existing


def class_files(
    folder: str | Path, suffixes: tuple[str, ...], limit: int | None
) -> tuple[list[Path], list[str], list[str]]:
    """Files, the class of each, and all class names, sorted.

    The classes take turns (first file of each, second of each, ...), so that a limit or a head
    sees all of them.
    """
    folder = existing(folder, folder=True)
    kind = "/".join(suffixes)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if not names:
        raise DataError(
            f"{folder} has no folders in it; put the {kind} files in one for each class"
        )
    found = []
    for name in names:
        files = sorted(
            p
            for p in (folder / name).iterdir()
            if p.suffix.lower() in suffixes and p.name[0] != "." and p.is_file()
        )
        if not files:
            raise DataError(
                f"{folder / name} has no {kind} files; add some, or remove this class's folder"
            )
        found.append([(file, name) for file in files])
    turns = [pair for pair in chain.from_iterable(zip_longest(*found)) if pair is not None][:limit]
    return [file for file, _ in turns], [name for _, name in turns], names
