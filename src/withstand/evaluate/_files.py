"""A report's files: each is either whole or not there."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from .._errors import OutputError
from ._html import page
from ._report import Report


def check_writable(folder: str | Path) -> Path:
    """Make the folder and try to write there, before hours of work; raises OutputError."""
    folder = Path(folder)
    probe = folder / f".withstand-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"output {folder} cannot be written: {error.strerror}; give another folder"
        ) from None
    return folder


def save(report: Report, folder: str | Path) -> list[Path]:
    """Write report.json, report.html and adversarial.npz; raises OutputError.

    adversarial.npz holds x, x_adv, y and fooled for the samples in the data's order.
    """
    folder = check_writable(folder)
    arrays = io.BytesIO()
    fooled = np.asarray([status == "fooled" for status in report.samples.status])
    np.savez_compressed(
        arrays, x=report.x, x_adv=report.x_adv, y=report.samples.label, fooled=fooled
    )
    return [
        write(folder / "report.json", report.to_json().encode()),
        write(folder / "report.html", page({"": report}).encode()),
        write(folder / "adversarial.npz", arrays.getvalue()),
    ]


def write(path: Path, content: bytes) -> Path:
    """Write a file under another name first, so that it is never half there."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written: {error.strerror}; free space there or give another folder"
        ) from None
    return path
